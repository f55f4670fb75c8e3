// The explorer of one generator, live: the same in a node of ComfyUI and on the page of `creps explore`.
//
// `Explorer` owns the scene (scene.mjs) and the parts of the page, which call its `on...` methods for changes by the user.
// frame_requester.mjs requests frames over connection.mjs: drafts, of a size that the server has time for, while something
// moves, all pixels at rest. viewport.mjs shows them.

import { PROTOCOL } from "./constants.mjs";
import { copy, readScene, readShot } from "./scene.mjs";
import { el } from "./dom.mjs";
import { Connection } from "./connection.mjs";
import { Film } from "./film.mjs";
import { FrameRequester } from "./frame_requester.mjs";
import { Overlay } from "./overlay.mjs";
import { Pad } from "./pad.mjs";
import { Panel } from "./panel.mjs";
import { SaveDialog } from "./save_dialog.mjs";
import { Viewport } from "./viewport.mjs";

/** @import {FrameHeader} from "./connection.mjs" */
/** @import {Request} from "./frame_requester.mjs" */
/** @import {Keyframe, Scene, View} from "./scene.mjs" */
/**
 * The `generator` message of the server.
 * @typedef {object} GeneratorInfo
 * @property {string} name
 * @property {string} device
 * @property {[number, number]} aspect
 * @property {number} classes
 * @property {number} pairs of directions
 * @property {number} linked pairs of directions from the node's input
 * @property {{own: number} & Record<string, number>} directions count by kind of walk
 * @property {string[]} names of its named directions
 */
/**
 * @typedef {object} Options
 * @property {string} socket URL
 * @property {unknown} [scene]
 * @property {string} [source] name of the generator; empty: the first that the server has
 * @property {"auto" | "light" | "dark"} [theme]
 * @property {boolean} [fixedSource] the generator is chosen elsewhere
 * @property {(scene: Scene) => void} [onchange]
 */

const CHANGE_MS = 120; // without a change, until `onchange` is called
const THUMBNAIL = 160; // pixels
const NOT_FOR_CANVAS = ["pointerdown", "mousedown", "dblclick", "copy", "paste", "cut", "keyup"];
const OLD_PAGE = "the server has another version: reload this page";

export class Explorer {
    /** @param {HTMLElement} host is filled @param {Options} options */
    constructor(host, { socket, scene = {}, source = "", theme = "auto", fixedSource = false, onchange = () => {} }) {
        this.host = host;
        /** @type {HTMLElement & {explorer?: Explorer}} */ (host).explorer = this; // for code that finds the element
        this.scene = readScene(scene);
        /** @type {string[]} names of the server's generators */
        this.sources = [];
        this.source = source;
        this.fixedSource = fixedSource;
        /** @type {GeneratorInfo | null} */
        this.generator = null;
        this.problem = ""; // why there can be no image
        this.wantsFocus = false;
        this.onchange = onchange;
        /** @type {ReturnType<typeof setTimeout> | undefined} */
        this.changeTimer = undefined;
        this.requester = new FrameRequester(this);
        this.viewport = new Viewport(this);
        this.pad = new Pad(this);
        this.film = new Film(this);
        this.panel = new Panel(this);
        this.saveDialog = new SaveDialog(this);
        this.overlay = new Overlay(this);
        this.body = this.build(theme);
        this.show();
        this.connection = new Connection(socket, {
            open: () => this.showStatus(""),
            close: (reason) => this.showStatus(reason || "connecting\u2026", reason ? "error" : ""),
            message: (message) => this.onMessage(message),
            frame: (header, jpeg) => this.requester.receive(header, jpeg),
        });
        this.showStatus("connecting\u2026");
        this.onVisibility = () => document.hidden || this.invalidate();
        document.addEventListener("visibilitychange", this.onVisibility);
    }

    /** @param {string} theme */
    build(theme) {
        const { overlay } = this;
        const body = el("div", { class: "explorer", "data-theme": theme, hidden: true },
            el("div", { class: "view" }, this.viewport.canvas, this.pad.element, ...overlay.elements,
                this.saveDialog.element),
            this.panel.element, this.film.element);
        const style = el("link", { rel: "stylesheet", href: new URL("explorer.css", import.meta.url).href });
        style.addEventListener("load", () => {
            body.hidden = false;
            this.viewport.measure();
            if (this.wantsFocus) this.focus();
        });
        const root = this.host.shadowRoot ?? this.host.attachShadow({ mode: "open" });
        root.replaceChildren(style, body);
        body.addEventListener("keydown", (event) => this.onKeyDown(event));
        for (const type of NOT_FOR_CANVAS) body.addEventListener(type, (event) => event.stopPropagation());
        return body;
    }

    // State

    /** The view on screen: that of the film's frame while a film is shown. @returns {View} */
    get view() {
        return (this.film.time !== null && this.requester.shown.view) || this.scene.view;
    }

    set view(view) {
        this.film.leave();
        this.scene.view = view;
    }

    /** Whether the frame on screen is current, with all pixels. */
    get settled() {
        return this.requester.settled;
    }

    /** The frame on screen is out of date. @param {number} [time] of the event, if there was one */
    invalidate(time) {
        this.requester.invalidate(time);
        this.notifyChange();
    }

    /** Call `onchange` soon. */
    notifyChange() {
        clearTimeout(this.changeTimer);
        this.changeTimer = setTimeout(() => this.onchange(this.scene), CHANGE_MS);
    }

    // Changes by the user

    /** @param {number} [time] of the event */
    onViewChanged(time) {
        this.overlay.showZoom();
        this.invalidate(time);
    }

    /** @param {number} [time] of the event */
    onSceneChanged(time) {
        this.film.leave();
        this.show();
        this.invalidate(time);
    }

    /** The pad has moved. @param {number} [time] of the event */
    onWalked(time) {
        this.film.leave();
        this.pad.show();
        this.invalidate(time);
    }

    /** The pad has other directions. */
    onWalkChanged() {
        this.pad.clearTrail();
        this.onSceneChanged();
    }

    onSizeChanged() {
        this.show();
        this.saveDialog.showSize();
        this.viewport.paint();
        this.invalidate();
    }

    onKeyframesChanged() {
        this.film.show();
        this.invalidate();
    }

    /** Choose new directions for the pad, from its middle. */
    rollDirections() {
        const { scene: { walk }, generator } = this, random = () => Math.floor(Math.random() * 1e6);
        const pairs = walk.kind === "linked" ? generator?.linked ?? 1 : Math.min(generator?.pairs ?? 1, 8);
        if (walk.kind === "random") walk.number = random();
        else if (walk.kind === "seeds") walk.seeds = [random(), random()];
        else walk.number = (walk.number + 1) % Math.max(pairs, 1);
        [walk.x, walk.y, walk.z] = [0, 0, 0];
        this.onWalkChanged();
        this.overlay.announce("new directions");
    }

    /** Change the seed by a step; null: a random one. @param {number | null} step */
    stepSeed(step) {
        const { scene } = this;
        scene.seed = step === null ? Math.floor(Math.random() * 2 ** 32) : Math.max(0, scene.seed + step);
        [scene.walk.x, scene.walk.y, scene.walk.z] = [0, 0, 0];
        this.pad.clearTrail();
        this.onSceneChanged();
        this.overlay.announce(`seed ${scene.seed}`);
    }

    /** @param {Keyframe} key */
    showKeyframe(key) {
        this.film.leave();
        Object.assign(this.scene, copy(readShot(key)));
        this.pad.clearTrail();
        this.onSceneChanged();
    }

    addKeyframe() {
        const added = this.film.add(this.viewport.images.length ? this.viewport.thumbnail(THUMBNAIL) : null);
        this.overlay.announce(added ? `key frame ${this.scene.keys.length}` : "there is no room for more key frames");
    }

    /** @param {KeyboardEvent} event */
    onKeyDown(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        event.stopPropagation(); // keys without a modifier are the explorer's, not ComfyUI's
        const target = /** @type {HTMLElement} */ (event.composedPath()[0]);
        if (event.key === "Escape") {
            this.overlay.toggleHelp(false);
            this.saveDialog.toggle(false);
            this.viewport.canvas.focus();
            return;
        }
        if (target.matches("input:not([type=range]), select")) return;
        if (target.matches("button") && (event.key === " " || event.key === "Enter")) return;
        const act = this.shortcut(event);
        if (act) {
            event.preventDefault();
            act();
        } else if (!target.matches("input, .pad-field, .thumb")) {
            this.viewport.gestures.onKeyDown(event);
        }
    }

    /** @param {KeyboardEvent} event @returns {(() => void) | undefined} */
    shortcut(event) {
        const { overlay, saveDialog, viewport: { gestures } } = this;
        /** @type {Record<string, () => void>} */
        const shortcuts = {
            n: () => this.stepSeed(1), p: () => this.stepSeed(-1), x: () => this.stepSeed(null),
            g: () => this.rollDirections(), k: () => this.addKeyframe(), " ": () => this.film.toggle(),
            d: () => overlay.toggleStats(), f: () => overlay.toggleFrame(), "?": () => overlay.toggleHelp(),
            r: () => gestures.turn(event.shiftKey ? -90 : 90), "0": () => gestures.goHome(),
            s: () => saveDialog.button.hidden || saveDialog.toggle(),
        };
        return shortcuts[event.key.toLowerCase()];
    }

    // Server

    /** @param {object} message */
    send(message) {
        this.connection.send(message);
    }

    /** @param {any} message see creps_core/serving/protocol.py */
    onMessage(message) {
        if (message.hello) {
            this.onHello(message.hello);
        } else if (message.generator) {
            this.generator = message.generator;
            this.body.classList.toggle("no-blur", this.generator?.device === "cpu"); // the processor is busy enough
            this.show();
            this.viewport.paint();
            this.invalidate(); // its aspect may differ
        } else if ("waiting" in message) {
            this.showStatus(message.waiting ? "waiting for the running prompt\u2026" : "", "wait");
        } else if (message.saving) {
            this.saveDialog.show(message.saving);
        } else if (message.error) {
            this.showStatus(message.error, "error");
            if (!message.refused) this.requester.retry();
        }
    }

    /** @param {{protocol: number, sources: string[], saves: boolean}} hello */
    onHello({ protocol, sources, saves }) {
        if (protocol !== PROTOCOL) {
            this.connection.close();
            this.problem = OLD_PAGE;
            this.showStatus("", "error");
            return;
        }
        this.sources = sources;
        this.saveDialog.button.hidden = !saves;
        if (!this.fixedSource && !sources.includes(this.source)) this.source = sources[0] ?? "";
        this.showStatus(this.source && !this.problem ? "loading\u2026" : "");
        this.show();
        this.invalidate();
    }

    /** A frame is on screen. @param {FrameHeader} header @param {Request} request @param {number} bytes */
    onFrame(header, request, bytes) {
        this.showStatus("");
        this.overlay.showZoom();
        requestAnimationFrame((now) => {
            this.overlay.record(header, request, bytes, now);
            const detail = { ...header, bytes, moved: request.moved, now };
            this.host.dispatchEvent(new CustomEvent("creps-frame", { detail }));
        });
    }

    // Display

    /** A line over the image; the problem, if the text is empty. @param {string} text @param {"" | "wait" | "error"} kind */
    showStatus(text, kind = "") {
        this.overlay.showStatus(text || this.problem, kind);
    }

    show() {
        this.panel.show();
        this.pad.show();
        this.film.show();
        this.overlay.showZoom();
    }

    // For the code that embeds the explorer

    /** Why there can be no image, such as a missing link; empty when there can. @param {string} text */
    setProblem(text) {
        if (text === this.problem || this.problem === OLD_PAGE) return;
        this.problem = text;
        this.showStatus("");
        if (!text) this.invalidate();
    }

    /** Show another generator. @param {string} source */
    selectSource(source) {
        this.source = source;
        this.requester.discard();
        this.film.thumbnails = new WeakMap();
        this.showStatus("loading\u2026");
        this.onSceneChanged();
    }

    /** @param {"auto" | "light" | "dark"} theme */
    setTheme(theme) {
        if (this.body.dataset.theme === theme) return;
        this.body.dataset.theme = theme;
        this.pad.paint();
    }

    /** Take the keyboard focus. */
    focus() {
        this.wantsFocus = this.body.hidden !== false;
        this.viewport.canvas.focus(/** @type {FocusOptions} */ ({ preventScroll: true, focusVisible: false }));
    }

    /** Show another scene. @param {unknown} scene */
    load(scene) {
        this.scene = readScene(scene);
        this.film.leave();
        this.pad.clearTrail();
        this.show();
        this.invalidate();
    }

    close() {
        clearTimeout(this.changeTimer);
        this.requester.close();
        document.removeEventListener("visibilitychange", this.onVisibility);
        this.film.pause();
        this.connection.close();
        this.viewport.close();
        this.pad.close();
    }
}
