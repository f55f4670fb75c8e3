// The explorer: one picture, live. The same page stands in a node of ComfyUI and in the window of `creps explore`.
//
// It owns the scene (scene.mjs) and the parts of the page. Pictures are asked for in asker.mjs: while something moves, frames
// of a size that the server finds it has time for, at rest every pixel. They come over link.mjs and are shown by stage.mjs.

import { copy, readLook, readScene, zoomText } from "./scene.mjs";
import { button, el } from "./dom.mjs";
import { FrameRequester } from "./asker.mjs";
import { Film } from "./film.mjs";
import { Link } from "./link.mjs";
import { Pad } from "./pad.mjs";
import { Panel } from "./panel.mjs";
import { Saver } from "./saver.mjs";
import { Stage } from "./stage.mjs";

const CHANGE_MS = 120; // until somebody is told that the scene has changed
const THUMB = 160; // pixels of a key's picture
const KEPT = 240; // measurements
const STYLE = new URL("explorer.css", import.meta.url).href;

const HELP = [
    ["drag", "move"], ["wheel, pinch, + \u2212", "zoom about the pointer"], ["double click, 0", "return"],
    ["R", "turn, with shift back"], ["N  P  X", "next, previous, any seed"], ["G", "new directions for the pad"],
    ["K", "keep a key frame"], ["space", "play the film"], ["F", "frame of the picture"], ["D", "what a frame takes"],
];

export class Explorer {
    /**
     * @param {HTMLElement} host: is filled.
     * @param {object} options: `socket` (URL), `scene`, `source` (name of the generator, or empty for the first that the
     *   server has), `theme` ("auto", "light", "dark"), `fixedSource` (it is chosen elsewhere), onchange(scene).
     */
    constructor(host, { socket, scene = {}, source = "", theme = "auto", fixedSource = false, onchange = () => {} }) {
        this.host = host;
        host.explorer = this; // for whoever finds the element
        this.scene = readScene(scene);
        this.sources = [];
        this.source = source;
        this.fixedSource = fixedSource;
        this.about = null;
        this.problem = "";
        this.onchange = onchange;
        this.latencies = []; // ms from an event to the frame that shows it
        this.times = []; // of the last frames
        this.asker = new FrameRequester(this);
        this.build(theme);
        this.link = new Link(socket, {
            open: () => this.state(""),
            close: () => this.state("connecting\u2026"),
            message: (message) => this.heard(message),
            frame: (header, blob) => this.asker.arrived(header, blob),
        });
        this.state("connecting\u2026");
        this.visible = () => document.hidden || this.moved();
        document.addEventListener("visibilitychange", this.visible);
    }

    build(theme) {
        const root = this.root = this.host.attachShadow({ mode: "open" });
        this.stage = new Stage(this);
        this.pad = new Pad(this);
        this.film = new Film(this);
        this.panel = new Panel(this);
        this.saver = new Saver(this);
        this.zoom = el("output", { class: "chip zoom", title: "How close: 1 is the whole frame" });
        this.chip = el("div", { class: "chip state", role: "status", hidden: true });
        this.stats = el("dl", { class: "stats", hidden: true });
        this.live = el("div", { class: "unseen", "aria-live": "polite" });
        this.help = el("div", { class: "popover help", role: "dialog", "aria-label": "Keys", hidden: true },
            el("dl", {}, ...HELP.flatMap(([keys, text]) => [el("dt", {}, keys), el("dd", {}, text)])));
        this.helpButton = button("help", "Keys", () => this.showHelp(), "?", { "aria-expanded": "false" });
        this.statsButton = button("info", "What a frame takes", () => this.showStats(), "D", { "aria-pressed": "false" });
        this.frameButton = button("frame", "Frame of the picture", () => this.showFrame(), "F", { "aria-pressed": "true" });
        this.saver.button.hidden = true;
        const tools = el("div", { class: "tools", role: "toolbar", "aria-label": "View" },
            button("home", "Return", () => this.stage.goHome(), "0"),
            button("turn", "Turn", (event) => this.stage.turn(event.shiftKey ? -90 : 90), "R"),
            this.frameButton,
            button("key", "Keep a key frame", () => this.keep(), "K"),
            this.saver.button, this.statsButton, this.helpButton);
        this.body = el("div", { class: "explorer", "data-theme": theme, hidden: true },
            el("div", { class: "view" }, this.stage.canvas, this.pad.element, tools,
                el("div", { class: "corner" }, this.zoom), this.chip, this.stats, this.saver.element, this.help, this.live),
            this.panel.element, this.film.element);
        const style = el("link", { rel: "stylesheet", href: STYLE });
        style.addEventListener("load", () => {
            this.body.hidden = false;
            this.stage.measure();
            if (this.wantsFocus) this.focus();
        });
        root.append(style, this.body);
        this.body.addEventListener("keydown", (event) => this.keydown(event));
        for (const type of ["pointerdown", "mousedown", "dblclick", "copy", "paste", "cut", "keyup"]) {
            this.body.addEventListener(type, (event) => event.stopPropagation()); // not the canvas's of ComfyUI
        }
        this.show();
    }

    // What the parts of the page need of their owner

    get view() {
        return this.film.time !== null && this.asker.shown.view ? this.asker.shown.view : this.scene.view;
    }

    set view(view) {
        this.film.leave();
        this.scene.view = view;
    }

    /** The view has changed by hand. */
    moved(time) {
        this.zoom.textContent = zoomText(this.view.zoom);
        this.want(time);
    }

    resized() {
        this.want();
    }

    walked(time) {
        this.film.leave();
        this.pad.show();
        this.want(time);
    }

    walkChanged() {
        this.pad.forget();
        this.changed();
    }

    /** New directions for the pad, from the middle. */
    roll() {
        const { walk } = this.scene, random = () => Math.floor(Math.random() * 1e6);
        const pairs = walk.kind === "linked" ? this.about?.linked ?? 1 : Math.min(this.about?.pairs ?? 1, 8);
        if (walk.kind === "random") walk.number = random();
        else if (walk.kind === "seeds") walk.seeds = [random(), random()];
        else walk.number = (walk.number + 1) % Math.max(pairs, 1);
        [walk.x, walk.y, walk.z] = [0, 0, 0];
        this.walkChanged();
        this.say("new directions");
    }

    /** The next seed, the previous one, or with null any. */
    seed(step) {
        const { scene } = this;
        scene.seed = step === null ? Math.floor(Math.random() * 2 ** 32) : Math.max(0, scene.seed + step);
        [scene.walk.x, scene.walk.y, scene.walk.z] = [0, 0, 0];
        this.pad.forget();
        this.changed();
        this.say(`seed ${scene.seed}`);
    }

    changed(time) {
        this.film.leave();
        this.show();
        this.want(time);
    }

    sized() {
        this.show();
        this.saver.show();
        this.stage.paint();
        this.want();
    }

    keysChanged() {
        this.film.show();
        this.told();
        this.want();
    }

    playing() {
        this.want();
    }

    /** Show a key frame. */
    look(key) {
        this.film.leave();
        Object.assign(this.scene, copy(readLook(key)));
        this.pad.forget();
        this.changed();
    }

    keep() {
        const kept = this.film.keep(this.stage.frames.length ? this.stage.thumbnail(THUMB) : null);
        this.say(kept ? `key frame ${this.scene.keys.length}` : "there is no room for more key frames");
    }

    chosen(source) {
        this.source = source;
        this.asker.forget();
        this.film.pictures = new WeakMap();
        this.state("loading\u2026");
        this.changed();
    }

    send(message) {
        this.link.send(message);
    }

    // ImageDataset

    /** Whether every pixel on screen is what is wanted. */
    get settled() {
        return this.asker.settled;
    }

    /** What is on screen is not what is wanted any more. `time` is that of the event, if there was one. */
    want(time) {
        this.asker.want(time);
        this.told();
    }

    /** A picture is on screen. */
    showed(header, asked, bytes) {
        this.state("");
        this.zoom.textContent = zoomText(this.view.zoom);
        requestAnimationFrame((now) => this.measured(header, asked, bytes, now));
    }

    heard(message) {
        if (message.hello) {
            this.sources = message.hello.sources;
            this.saver.button.hidden = !message.hello.saves;
            if (!this.fixedSource && !this.sources.includes(this.source)) this.source = this.sources[0] ?? "";
            this.state(this.source && !this.problem ? "loading\u2026" : "");
            this.show();
            this.want();
        } else if (message.generator) {
            this.about = message.generator;
            this.body.classList.toggle("plain", this.about.device === "cpu"); // spare the processor
            this.show();
            this.stage.paint();
            this.want(); // it may be of another shape
        } else if ("waiting" in message) {
            this.state(message.waiting ? "waiting for the running prompt\u2026" : "", "wait");
        } else if (message.saving) {
            this.saver.heard(message.saving);
        } else if (message.error) {
            this.state(message.error, "error");
            if (!message.refused) this.asker.failed();
        }
    }

    // What is seen

    /** A line over the picture; empty for none. */
    state(text, kind = "") {
        text = text || this.problem;
        this.chip.textContent = text;
        this.chip.hidden = !text;
        this.chip.className = `chip state ${kind}`;
    }

    /** Why there can be no picture, such as a link that is missing; empty when there can. */
    setProblem(text) {
        if (text === this.problem) return;
        this.problem = text;
        this.state("");
        if (!text) this.want();
    }

    show() {
        this.panel.show();
        this.pad.show();
        this.film.show();
        this.zoom.textContent = zoomText(this.view.zoom);
    }

    say(text) {
        this.live.textContent = text;
    }

    setTheme(theme) {
        this.body.dataset.theme = theme;
        this.pad.paint();
    }

    showHelp(open = this.help.hidden) {
        this.help.hidden = !open;
        this.helpButton.setAttribute("aria-expanded", String(open));
    }

    showStats() {
        this.stats.hidden = !this.stats.hidden;
        this.statsButton.setAttribute("aria-pressed", String(!this.stats.hidden));
    }

    showFrame() {
        this.stage.framed = !this.stage.framed;
        this.frameButton.setAttribute("aria-pressed", String(this.stage.framed));
        this.stage.paint();
        this.want();
    }

    /** A frame is on screen: how long it took, for the overlay and for whoever asks `latencies`. */
    measured(header, asked, bytes, now) {
        if (asked.event !== undefined) {
            this.latencies.push({ ms: now - asked.event, width: header.width, height: header.height });
            this.latencies = this.latencies.slice(-KEPT);
        }
        this.times = [...this.times.filter((time) => now - time < 1000), now];
        this.host.dispatchEvent(new CustomEvent("creps-frame", { detail: { ...header, bytes, moved: asked.moved, now } }));
        if (this.stats.hidden) return;
        const last = this.latencies.at(-1), stage = this.stage.stage;
        const rows = [
            ["frames", `${this.times.length} per second`],
            ["size", `${header.width} \u00d7 ${header.height} of ${stage.width} \u00d7 ${stage.height}${header.sharp ? ", sharp" : ""}`],
            ["draw", `${header.draw.toFixed(1)} ms`],
            ["JPEG", `${header.encode.toFixed(1)} ms, ${(bytes / 1024).toFixed(1)} KB, quality ${header.quality}`],
            ["answer", `${(now - asked.at).toFixed(0)} ms after the question`],
            ["pointer", last ? `${last.ms.toFixed(0)} ms to pixels` : "\u2013"],
            ["device", this.about?.device ?? ""],
        ];
        this.stats.replaceChildren(...rows.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
    }

    keydown(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        event.stopPropagation(); // keys without a modifier are the explorer's, not ComfyUI's
        const target = event.composedPath()[0];
        if (event.key === "Escape") {
            this.showHelp(false);
            this.saver.toggle(false);
            this.stage.canvas.focus();
            return;
        }
        if (target.matches("input:not([type=range]), select")) return;
        const press = target.matches("button") && (event.key === " " || event.key === "Enter");
        if (press) return;
        const acts = {
            n: () => this.seed(1), p: () => this.seed(-1), x: () => this.seed(null), g: () => this.roll(),
            k: () => this.keep(), d: () => this.showStats(), f: () => this.showFrame(), " ": () => this.film.toggle(),
            r: () => this.stage.turn(event.shiftKey ? -90 : 90), "?": () => this.showHelp(),
            s: () => this.saver.button.hidden || this.saver.toggle(), "0": () => this.stage.goHome(),
        };
        const act = acts[event.key.toLowerCase()];
        if (act) {
            event.preventDefault();
            act();
        } else if (!target.matches("input, .pad-field, .thumb")) {
            this.stage.keydown(event);
        }
    }

    // For whoever put the explorer somewhere

    /** Take the keyboard. */
    focus() {
        this.wantsFocus = this.body.hidden;
        this.stage.canvas.focus({ preventScroll: true, focusVisible: false });
    }

    /** Show another scene. */
    load(scene) {
        this.scene = readScene(scene);
        this.film.leave();
        this.pad.forget();
        this.show();
        this.want();
    }

    /** The scene has changed: say so soon. */
    told() {
        clearTimeout(this.telling);
        this.telling = setTimeout(() => this.onchange(this.scene), CHANGE_MS);
    }

    close() {
        clearTimeout(this.telling);
        this.asker.close();
        document.removeEventListener("visibilitychange", this.visible);
        this.film.pause();
        this.link.close();
        this.stage.close();
        this.pad.close();
    }
}
