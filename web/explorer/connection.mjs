// The WebSocket to the server; creps_core/serving/protocol.py describes the messages.

const RECONNECT_MS = [300, 1000, 2000, 4000];

/**
 * @typedef {object} FrameHeader
 * @property {number} id of the request
 * @property {number} width
 * @property {number} height
 * @property {boolean} sharp
 * @property {number} quality of the JPEG
 * @property {import("./scene.mjs").View} view
 * @property {number} draw milliseconds
 * @property {number} encode milliseconds
 */
/**
 * @typedef {object} Handlers
 * @property {() => void} open
 * @property {(reason: string) => void} close the reason is empty if none is known
 * @property {(message: any) => void} message
 * @property {(header: FrameHeader, jpeg: Blob) => void} frame
 */

export class Connection {
    /** @param {string} url @param {Handlers} handlers */
    constructor(url, handlers) {
        this.url = url;
        this.handlers = handlers;
        this.attempts = 0;
        this.reason = ""; // why there is no socket
        this.closed = false;
        /** @type {ReturnType<typeof setTimeout> | undefined} */
        this.timer = undefined;
        this.socket = this.open();
    }

    /** @returns {WebSocket} */
    open() {
        const socket = (this.socket = new WebSocket(this.url));
        socket.binaryType = "arraybuffer";
        let opened = false;
        socket.onopen = () => {
            opened = true;
            this.attempts = 0;
            this.reason = "";
            this.handlers.open();
        };
        socket.onmessage = ({ data }) => {
            if (this.closed) return;
            if (typeof data === "string") {
                const message = JSON.parse(data);
                if ("error" in message && !message.refused) this.acknowledge(message.id);
                this.handlers.message(message);
                return;
            }
            const length = new DataView(data).getUint32(0, true);
            const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
            this.handlers.frame(header, new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
        };
        socket.onclose = () => {
            if (this.closed) return;
            this.handlers.close(this.reason);
            if (!opened) this.explain();
            const pause = RECONNECT_MS[Math.min(this.attempts++, RECONNECT_MS.length - 1)];
            this.timer = setTimeout(() => this.open(), pause);
        };
        return socket;
    }

    /** Ask why there is no socket, which a browser does not tell: the same request by POST, whose answer can be read. */
    async explain() {
        let reason = "";
        try {
            const answer = await fetch(this.url.replace(/^ws/, "http"), { method: "POST" });
            const text = (await answer.text()).slice(0, 400).trim();
            if (answer.ok) reason = "no WebSocket gets through: let the proxy pass Upgrade and Connection";
            else if (answer.status === 404) reason = "this server has no explorer: restart it, or correct the proxy";
            else reason = text && !text.startsWith("<") ? text : `the server refuses this page (${answer.status})`;
        } catch {
            // no server: it may come back
        }
        if (this.closed || this.ready) return;
        this.reason = reason;
        if (reason) this.handlers.close(reason);
    }

    get ready() {
        return this.socket.readyState === WebSocket.OPEN;
    }

    /** @param {object} message */
    send(message) {
        if (this.ready) this.socket.send(JSON.stringify(message));
    }

    /** Tell the server that an answer was handled: it may send one more. @param {number} id */
    acknowledge(id) {
        this.send({ seen: id });
    }

    close() {
        this.closed = true;
        clearTimeout(this.timer);
        this.socket.close();
    }
}
