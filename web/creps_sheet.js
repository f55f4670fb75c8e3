// A contact sheet that one can click: a picture's number goes into `choice`, and its latent comes out with the next run.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const SMALLEST = 180; // height of the sheet in units

const viewURL = ({ filename, subfolder, type }) =>
    api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

function addSheet(node) {
    const choice = node.widgets?.find((widget) => widget.name === "choice");
    if (!choice) return;
    const element = document.createElement("div");
    element.className = "creps-sheet";
    element.style.cssText = "position: relative; width: 100%; height: 100%; display: grid; place-items: center; "
        + "overflow: hidden; border-radius: 6px; background: #111215; color: #9498a2; font: 12px sans-serif";
    const hint = "Run, then click a picture to choose it";
    element.textContent = hint;
    const picture = new Image(), frame = document.createElement("div");
    picture.draggable = false;
    picture.style.cssText = "position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; cursor: pointer";
    picture.alt = "contact sheet";
    frame.style.cssText = "position: absolute; pointer-events: none; outline: 2px solid #fff; box-shadow: 0 0 0 4px #0008; "
        + "border-radius: 2px";
    const state = { page: null };

    /** Of the picture as it is shown: scale, left, top in pixels of the element. */
    const placed = () => {
        const scale = Math.min(element.clientWidth / state.page.width, element.clientHeight / state.page.height);
        return [scale, (element.clientWidth - scale * state.page.width) / 2,
            (element.clientHeight - scale * state.page.height) / 2];
    };
    const show = () => {
        const cells = state.page?.cells ?? [], cell = cells[Math.min(choice.value, cells.length - 1)];
        frame.hidden = !cell;
        if (!cell) return;
        const [scale, x, y] = placed(), [left, top, width, height] = cell;
        const box = { left: x + scale * left, top: y + scale * top, width: scale * width, height: scale * height };
        for (const [name, value] of Object.entries(box)) frame.style[name] = `${value}px`;
    };
    element.addEventListener("pointerdown", (event) => event.stopPropagation()); // the canvas would drag the node
    element.addEventListener("click", (event) => {
        if (!state.page) return;
        const box = element.getBoundingClientRect(), zoom = box.width / element.clientWidth; // ComfyUI scales it
        const [scale, x, y] = placed();
        const [across, down] = [(event.clientX - box.left) / zoom - x, (event.clientY - box.top) / zoom - y];
        const found = state.page.cells.findIndex(([left, top, width, height]) =>
            across >= scale * left && across < scale * (left + width) && down >= scale * top && down < scale * (top + height));
        if (found < 0) return;
        choice.value = found;
        choice.callback?.(found);
        show();
    });
    const observer = new ResizeObserver(show);
    observer.observe(element);

    const widget = node.addDOMWidget("sheet", "CREPS_SHEET", element, {
        serialize: false, getMinHeight: () => SMALLEST, hideOnZoom: false,
    });
    widget.serialize = false;
    const changed = choice.callback;
    choice.callback = function () {
        show();
        return changed?.apply(this, arguments);
    };
    const executed = node.onExecuted;
    node.onExecuted = function (output) {
        const [page] = output?.creps_sheet ?? [];
        if (page) {
            state.page = page;
            picture.src = viewURL(page.image);
            element.replaceChildren(picture, frame);
            show();
        }
        return executed?.apply(this, arguments);
    };
    const removed = node.onRemoved;
    node.onRemoved = function () {
        observer.disconnect();
        return removed?.apply(this, arguments);
    };
}

app.registerExtension({
    name: "creps.sheet",
    nodeCreated(node) {
        if (node.constructor.comfyClass === "CREPS_ContactSheet") addSheet(node);
    },
});
