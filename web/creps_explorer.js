// CREPS Explorer in ComfyUI: the widget of the input `scene`. The explorer itself is in explorer/, which is imported with
// the first such node.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { after, widgetOf } from "./hooks.mjs";

/** @import {Explorer} from "./explorer/explorer.mjs" */
/** @typedef {ComfyNode & {crepsShared?: {source: string, wiring: string}}} ExplorerNode the last run shared a generator */

const SOCKET = "/creps/explorer/socket";
const LOADER = "CREPS_LoadGenerator";
const MIN_SIZE = [320, 300]; // of the widget
const FIRST_SIZE = [720, 700]; // of a new node
const GRACE_MS = 1000; // without an element in the page, until the explorer closes
const ZOOM_MS = 150; // without a change of the canvas' zoom, until it is measured

/** `source`: a loader was changed; `zoom`: the canvas was. */
const changes = new EventTarget();

/** The node that feeds an input, through reroutes. @param {ComfyNode | null} node @param {string} input */
function origin(node, input) {
    let slot = node?.inputs?.findIndex(({ name }) => name === input) ?? -1;
    for (let steps = 0; node && slot >= 0 && steps < 32; steps++) {
        node = /** @type {ComfyNode | null} */ (node.getInputNode?.(slot) ?? null);
        if (node?.type !== "Reroute") return node;
        slot = 0;
    }
    return null;
}

/** The server's name of the loader's choice; empty if the generator comes from another node. @param {ComfyNode} node */
function loadedSource(node) {
    const loader = origin(node, "model");
    if (loader?.type !== LOADER) return "";
    const checkpoint = String(widgetOf(loader, "checkpoint")?.value ?? "");
    const raw = widgetOf(loader, "weights")?.value === "G" && !checkpoint.startsWith("builtin: ");
    return raw ? `${checkpoint} (G)` : checkpoint;
}

/** What generator and directions depend on: what a run shared is valid while this is unchanged. @param {ComfyNode} node */
function wiring(node) {
    return JSON.stringify([origin(node, "model")?.id, loadedSource(node), origin(node, "directions")?.id]);
}

/** The name of the generator; or empty, and the reason. @param {ExplorerNode} node @returns {[string, string]} */
function sourceOf(node) {
    if (!origin(node, "model")) return ["", "link a generator to model"];
    const shared = node.crepsShared?.wiring === wiring(node) ? node.crepsShared.source : "";
    if (shared && (origin(node, "directions") || !loadedSource(node))) return [shared, ""];
    const loaded = loadedSource(node);
    return loaded ? [loaded, ""] : ["", "run once: this generator is made by the workflow"];
}

/** The theme of the page, by the colour of its text. @param {Element} element */
function themeOf(element) {
    const [r, g, b] = (getComputedStyle(element).color.match(/[\d.]+/g) ?? ["255", "255", "255"]).map(Number);
    return r + g + b < 380 ? "light" : "dark";
}

/** Tell ComfyUI that the workflow has changed. */
function captureChange() {
    const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
    (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

/** The element of the widget. The explorer lives while the element is in the page; the scene lives as long as the widget. */
class ExplorerElement extends HTMLElement {
    /** @type {ExplorerNode | null} */
    node = null;
    /** @type {unknown} */
    scene = {};
    /** @type {Explorer | null} */
    explorer = null;
    refresh = () => this.explorer && this.showSource(this.explorer);
    onZoom = () => {
        clearTimeout(this.zoomTimer);
        this.zoomTimer = setTimeout(() => this.explorer?.viewport.measure(), ZOOM_MS);
    };
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    zoomTimer = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    graceTimer = undefined;
    themes = new MutationObserver(() => this.explorer?.setTheme(themeOf(this)));

    connectedCallback() {
        clearTimeout(this.graceTimer);
        changes.addEventListener("source", this.refresh);
        changes.addEventListener("zoom", this.onZoom);
        api.addEventListener("graphChanged", this.refresh); // by hand, anywhere: a link before a reroute, say
        for (const root of [document.documentElement, document.body]) {
            this.themes.observe(root, { attributes: true, attributeFilter: ["class", "style"] });
        }
        requestAnimationFrame(() => this.open()); // by then the workflow has been read
    }

    disconnectedCallback() {
        changes.removeEventListener("source", this.refresh);
        changes.removeEventListener("zoom", this.onZoom);
        api.removeEventListener("graphChanged", this.refresh);
        this.themes.disconnect();
        clearTimeout(this.graceTimer);
        this.graceTimer = setTimeout(() => this.close(), GRACE_MS); // it may only be moved
    }

    async open() {
        const { Explorer } = await import("./explorer/explorer.mjs");
        if (!this.isConnected || !this.node) return;
        if (this.explorer) {
            this.refresh();
            this.onZoom();
            return;
        }
        const [source, problem] = sourceOf(this.node);
        this.explorer = new Explorer(this, {
            socket: new URL(api.apiURL(SOCKET), location.href).href.replace(/^http/, "ws"),
            scene: this.scene, source, fixedSource: true, theme: themeOf(this), onchange: captureChange,
        });
        this.explorer.setProblem(problem);
        this.explorer.viewport.canvas.addEventListener("pointerenter", this.onZoom);
    }

    close() {
        if (!this.explorer) return;
        this.scene = this.value;
        this.explorer.close();
        this.explorer = null;
    }

    /** @param {Explorer} explorer */
    showSource(explorer) {
        if (!this.node) return;
        const [source, problem] = sourceOf(this.node);
        if (source && source !== explorer.source) explorer.selectSource(source);
        explorer.setProblem(problem);
    }

    get value() {
        return JSON.parse(JSON.stringify(this.explorer?.scene ?? this.scene));
    }

    set value(scene) {
        this.scene = scene ?? {};
        this.explorer?.load(this.scene);
    }
}
customElements.define("creps-explorer", ExplorerElement);

/** @param {ExplorerNode} node @param {string} name */
function sceneWidget(node, name) {
    const element = /** @type {ExplorerElement} */ (document.createElement("creps-explorer"));
    element.className = "creps-explorer";
    element.dataset.captureWheel = "true";
    element.style.cssText = "display: block; width: 100%; height: 100%; border-radius: 8px; overflow: hidden; "
        + "color: var(--fg-color, #fff)";
    element.node = node;
    const widget = node.addDOMWidget(name, "CREPS_SCENE", element, {
        getValue: () => element.value,
        setValue: (value) => (element.value = value),
        getMinHeight: () => MIN_SIZE[1],
        hideOnZoom: false,
    });
    after(node, "onConnectionsChange", () => queueMicrotask(element.refresh));
    return { widget, minWidth: MIN_SIZE[0], minHeight: MIN_SIZE[1] };
}

/**
 * The wheel over the image zooms the image. Nodes 2.0 handles it before the widget unless that has the focus, and the
 * classic canvas does not get it from elements that lie over it: so handle it first, and pass it on where it belongs.
 * @param {WheelEvent} event
 */
function onWheel(event) {
    const path = event.composedPath();
    const element = path.find((one) => one instanceof ExplorerElement);
    if (!element?.explorer) return;
    const { viewport } = element.explorer;
    if (path.includes(viewport.canvas)) {
        event.stopImmediatePropagation();
        viewport.gestures.onWheel(event);
    } else if (!element.closest("[data-node-id]")) {
        event.stopImmediatePropagation();
        event.preventDefault();
        app.canvas.canvas.dispatchEvent(new WheelEvent("wheel", event));
    }
}

app.registerExtension({
    name: "creps.explorer",
    getCustomWidgets: () => ({ CREPS_SCENE: /** @type {any} */ (sceneWidget) }),
    setup() {
        window.addEventListener("wheel", onWheel, { capture: true, passive: false });
        after(app.canvas.ds, "onChanged", () => changes.dispatchEvent(new Event("zoom")));
    },
    nodeCreated(/** @type {ExplorerNode} */ node) {
        if (node.constructor.comfyClass === LOADER) {
            const notify = () => queueMicrotask(() => changes.dispatchEvent(new Event("source")));
            for (const widget of [widgetOf(node, "checkpoint"), widgetOf(node, "weights")]) {
                if (widget) after(widget, "callback", notify);
            }
        }
        if (node.constructor.comfyClass !== "CREPS_Explorer") return;
        node.setSize([Math.max(node.size[0], FIRST_SIZE[0]), Math.max(node.size[1], FIRST_SIZE[1])]);
        after(node, "onExecuted", (output) => {
            const [source] = output?.creps_source ?? [];
            if (!source) return;
            node.crepsShared = { source, wiring: wiring(node) };
            changes.dispatchEvent(new Event("source"));
        });
    },
});
