// What lies over the image: tools, zoom, status, statistics of frames, and the list of keys.

import { button, el } from "./dom.mjs";
import { zoomText } from "./view.mjs";

/** @import {Explorer} from "./explorer.mjs" */
/** @import {FrameHeader} from "./connection.mjs" */
/** @import {Request} from "./frame_requester.mjs" */

const MAX_LATENCIES = 240; // measurements that are kept

const KEYS = [
    ["drag", "move"], ["wheel, pinch, + \u2212", "zoom about the pointer"], ["double click, 0", "return"],
    ["R", "turn, with shift back"], ["N  P  X", "next, previous, any seed"], ["G", "new directions for the pad"],
    ["K", "keep a key frame"], ["space", "play the film"], ["F", "frame of the picture"], ["D", "what a frame takes"],
];

export class Overlay {
    /** @param {Explorer} explorer */
    constructor(explorer) {
        this.explorer = explorer;
        /** @type {{ms: number, width: number, height: number}[]} from an event to the frame that shows it */
        this.latencies = [];
        /** @type {number[]} of the frames of the last second */
        this.times = [];
        this.zoom = el("output", { class: "chip zoom", title: "How close: 1 is the whole frame" });
        this.status = el("div", { class: "chip state", role: "status", hidden: true });
        this.stats = el("dl", { class: "stats", hidden: true });
        this.live = el("div", { class: "visually-hidden", "aria-live": "polite" });
        this.help = el("div", { class: "popover help", role: "dialog", "aria-label": "Keys", hidden: true },
            el("dl", {}, ...KEYS.flatMap(([keys, text]) => [el("dt", {}, keys), el("dd", {}, text)])));
        this.helpButton = button("help", "Keys", () => this.toggleHelp(), "?", { "aria-expanded": "false" });
        this.statsButton = button("info", "What a frame takes", () => this.toggleStats(), "D", { "aria-pressed": "false" });
        this.frameButton = button("frame", "Frame of the picture", () => this.toggleFrame(), "F", {
            "aria-pressed": "true",
        });
        this.tools = el("div", { class: "tools", role: "toolbar", "aria-label": "View" },
            button("home", "Return", () => explorer.viewport.gestures.goHome(), "0"),
            button("turn", "Turn", (event) => explorer.viewport.gestures.turn(event.shiftKey ? -90 : 90), "R"),
            this.frameButton,
            button("key", "Keep a key frame", () => explorer.addKeyframe(), "K"),
            explorer.saveDialog.button, this.statsButton, this.helpButton);
        this.elements = [
            this.tools, el("div", { class: "corner" }, this.zoom), this.status, this.stats, this.help, this.live,
        ];
    }

    /** A line over the image; empty for none. @param {string} text @param {"" | "wait" | "error"} kind */
    showStatus(text, kind = "") {
        this.status.textContent = text;
        this.status.hidden = !text;
        this.status.className = `chip state ${kind}`;
    }

    showZoom() {
        this.zoom.textContent = zoomText(this.explorer.view.zoom);
    }

    /** For screen readers. @param {string} text */
    announce(text) {
        this.live.textContent = text;
    }

    toggleHelp(open = this.help.hidden) {
        this.help.hidden = !open;
        this.helpButton.setAttribute("aria-expanded", String(open));
    }

    toggleStats() {
        this.stats.hidden = !this.stats.hidden;
        this.statsButton.setAttribute("aria-pressed", String(!this.stats.hidden));
    }

    toggleFrame() {
        const { viewport } = this.explorer;
        viewport.framed = !viewport.framed;
        this.frameButton.setAttribute("aria-pressed", String(viewport.framed));
        viewport.paint();
        this.explorer.invalidate();
    }

    /**
     * A frame is on screen: record how long it took.
     * @param {FrameHeader} header
     * @param {Request} request
     * @param {number} bytes of the JPEG
     * @param {number} now
     */
    record(header, request, bytes, now) {
        if (request.event !== undefined) {
            this.latencies.push({ ms: now - request.event, width: header.width, height: header.height });
            this.latencies = this.latencies.slice(-MAX_LATENCIES);
        }
        this.times = [...this.times.filter((time) => now - time < 1000), now];
        if (this.stats.hidden) return;
        const last = this.latencies.at(-1), { layout } = this.explorer.viewport;
        const sharp = header.sharp ? ", sharp" : "";
        const rows = [
            ["frames", `${this.times.length} per second`],
            ["size", `${header.width} \u00d7 ${header.height} of ${layout.width} \u00d7 ${layout.height}${sharp}`],
            ["draw", `${header.draw.toFixed(1)} ms`],
            ["JPEG", `${header.encode.toFixed(1)} ms, ${(bytes / 1024).toFixed(1)} KB, quality ${header.quality}`],
            ["answer", `${(now - request.at).toFixed(0)} ms after the question`],
            ["pointer", last ? `${last.ms.toFixed(0)} ms to pixels` : "\u2013"],
            ["device", this.explorer.generator?.device ?? ""],
        ];
        this.stats.replaceChildren(...rows.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
    }
}
