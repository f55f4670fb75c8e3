// CREPS Explorer in ComfyUI: the widget of its input `scene`. The explorer itself is in explorer/, loaded with the first
// such node.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const SOCKET = "/creps/explorer/socket";
const LOADER = "CREPS_LoadGenerator";
const SMALLEST = [320, 300]; // of the widget
const FIRST = [720, 700]; // of a new node
const LOOK_MS = 400; // how often links and the loader's choice are looked at: neither tells of its changes

const explorers = new Map(); // element -> explorer

/** The node that feeds an input, through reroutes. */
function origin(node, name) {
    let from = node?.inputs?.findIndex((input) => input.name === name) ?? -1;
    for (let steps = 0; from >= 0 && steps < 32; steps++) {
        node = node.getInputNode?.(from);
        if (node?.type !== "Reroute") return node ?? null;
        from = 0;
    }
    return null;
}

const valueOf = (node, name) => node?.widgets?.find((widget) => widget.name === name)?.value;

/** What the loader is set to, as the server names it; empty when the generator comes from elsewhere. */
function loaded(node) {
    const loader = origin(node, "model");
    if (loader?.type !== LOADER) return "";
    const checkpoint = valueOf(loader, "checkpoint") ?? "";
    return valueOf(loader, "weights") === "G" && !checkpoint.startsWith("builtin: ") ? `${checkpoint} (G)` : checkpoint;
}

/** Where the generator and the directions come from: what the last run lent is good as long as this stays. */
function wiring(node) {
    return JSON.stringify([origin(node, "model")?.id, loaded(node), origin(node, "directions")?.id]);
}

/** The generator to show: [its name, or empty, and then why there is none]. */
function sourceOf(node) {
    if (!origin(node, "model")) return ["", "link a generator to model"];
    const lent = node.crepsLent?.wiring === wiring(node) ? node.crepsLent.source : "";
    if (lent && (origin(node, "directions") || !loaded(node))) return [lent, ""];
    return loaded(node) ? [loaded(node), ""] : ["", "run once: this generator is made by the workflow"];
}

/** The theme of the page, by the colour of its text. */
function themeOf(element) {
    const [r, g, b] = getComputedStyle(element).color.match(/[\d.]+/g).map(Number);
    return r + g + b < 380 ? "light" : "dark";
}

/** Tell ComfyUI that the workflow is another one. */
function noteChange() {
    const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker;
    (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

async function open(node, element, state) {
    const { Explorer } = await import("./explorer/explorer.mjs");
    if (state.closed) return;
    const [source, problem] = sourceOf(node);
    const explorer = state.explorer = new Explorer(element, {
        socket: new URL(api.apiURL(SOCKET), location.href).href.replace(/^http/, "ws"),
        scene: state.scene, source, fixedSource: true, theme: themeOf(element), onchange: noteChange,
    });
    explorers.set(element, explorer);
    explorer.setProblem(problem);
    state.looking = setInterval(() => {
        const [now, why] = sourceOf(node);
        if (now !== explorer.source && now) explorer.chosen(now);
        explorer.setProblem(why);
        explorer.stage.measure(); // ComfyUI scales the element without telling it
        const theme = themeOf(element);
        if (explorer.body.dataset.theme !== theme) explorer.setTheme(theme);
    }, LOOK_MS);
}

function sceneWidget(node, name) {
    const element = document.createElement("div");
    element.className = "creps-explorer";
    element.dataset.captureWheel = "true";
    element.style.cssText = "width: 100%; height: 100%; border-radius: 8px; overflow: hidden; color: var(--fg-color, #fff)";
    const state = { scene: {}, explorer: null };
    const widget = node.addDOMWidget(name, "CREPS_SCENE", element, {
        getValue: () => JSON.parse(JSON.stringify(state.explorer?.scene ?? state.scene)),
        setValue: (value) => {
            state.scene = value ?? {};
            state.explorer?.load(state.scene);
        },
        getMinHeight: () => SMALLEST[1],
        hideOnZoom: false,
    });
    const removed = node.onRemoved;
    node.onRemoved = function (...rest) {
        state.closed = true;
        clearInterval(state.looking);
        explorers.delete(element);
        state.explorer?.close();
        return removed?.apply(this, rest);
    };
    requestAnimationFrame(() => open(node, element, state)); // by then the workflow has been read
    return { widget, minWidth: SMALLEST[0], minHeight: SMALLEST[1] };
}

// The wheel over a picture zooms the picture. Nodes 2.0 takes it from above unless the widget has the focus, and the
// classic canvas does not get it back from what lies over it: so it is taken before both, and given where it belongs.
function onWheel(event) {
    const path = event.composedPath(), element = path.find((one) => explorers.has(one));
    if (!element) return;
    const { stage } = explorers.get(element);
    if (path.includes(stage.canvas)) {
        event.stopImmediatePropagation();
        stage.wheel(event);
    } else if (!element.closest("[data-node-id]")) {
        event.stopImmediatePropagation();
        event.preventDefault();
        app.canvas.canvas.dispatchEvent(new WheelEvent("wheel", event));
    }
}

app.registerExtension({
    name: "creps.explorer",
    getCustomWidgets: () => ({ CREPS_SCENE: sceneWidget }),
    setup: () => window.addEventListener("wheel", onWheel, { capture: true, passive: false }),
    nodeCreated(node) {
        if (node.constructor.comfyClass !== "CREPS_Explorer") return;
        node.setSize([Math.max(node.size[0], FIRST[0]), Math.max(node.size[1], FIRST[1])]);
        const executed = node.onExecuted;
        node.onExecuted = function (output) {
            const [source] = output?.creps_source ?? [];
            if (source) node.crepsLent = { source, wiring: wiring(node) };
            return executed?.apply(this, arguments);
        };
    },
});
