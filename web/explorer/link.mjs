// The connection to the server: see creps_core/serving/conversation.py for what is said.

const PAUSES = [300, 1000, 2000, 4000]; // ms before the next try

export class Link {
    /** @param {string} url of the WebSocket; @param {object} heard: functions open, close, message, frame. */
    constructor(url, heard) {
        this.url = url;
        this.heard = heard;
        this.tries = 0;
        this.open();
    }

    open() {
        const socket = (this.socket = new WebSocket(this.url));
        socket.binaryType = "arraybuffer";
        socket.onopen = () => {
            this.tries = 0;
            this.heard.open();
        };
        socket.onmessage = ({ data }) => {
            if (typeof data === "string") {
                const message = JSON.parse(data);
                if ("error" in message && !message.refused) this.seen(message.id);
                this.heard.message(message);
                return;
            }
            const length = new DataView(data).getUint32(0, true);
            const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
            this.heard.frame(header, new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
        };
        socket.onclose = () => {
            if (this.closed) return;
            this.heard.close();
            this.timer = setTimeout(() => this.open(), PAUSES[Math.min(this.tries++, PAUSES.length - 1)]);
        };
    }

    get ready() {
        return this.socket.readyState === WebSocket.OPEN;
    }

    send(message) {
        if (this.ready) this.socket.send(JSON.stringify(message));
    }

    /** An answer was dealt with: the server may send one more. */
    seen(id) {
        this.send({ seen: id });
    }

    close() {
        this.closed = true;
        clearTimeout(this.timer);
        this.socket.close();
    }
}
