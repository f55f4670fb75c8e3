// A contact sheet to click: the number of an image goes into `choice`, and the next run outputs its latent.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { after, widgetOf } from "./hooks.mjs";

/** @typedef {[number, number, number, number]} Cell left, top, width, height in pixels of the sheet */
/** @typedef {{filename: string, subfolder: string, type: string}} ImageFile */
/** @typedef {{image: ImageFile, width: number, height: number, cells: Cell[]}} Sheet */

const MIN_HEIGHT = 180;
const HINT = "Run, then click a picture to choose it";

/** @param {ImageFile} file */
const viewURL = ({ filename, subfolder, type }) =>
    api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

/** The element of the sheet: an image, and a mark on the chosen cell. */
class SheetView {
    /** @param {(cell: number) => void} onchoose */
    constructor(onchoose) {
        /** @type {Sheet | null} */
        this.sheet = null;
        this.choice = 0;
        this.element = document.createElement("div");
        this.element.className = "creps-sheet";
        this.element.style.cssText = "position: relative; width: 100%; height: 100%; display: grid; place-items: center; "
            + "overflow: hidden; border-radius: 6px; background: #111215; color: #9498a2; font: 12px sans-serif";
        this.element.textContent = HINT;
        this.image = new Image();
        this.image.draggable = false;
        this.image.alt = "contact sheet";
        this.image.style.cssText = "position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; "
            + "cursor: pointer";
        this.mark = document.createElement("div");
        this.mark.style.cssText = "position: absolute; pointer-events: none; outline: 2px solid #fff; "
            + "box-shadow: 0 0 0 4px #0008; border-radius: 2px";
        this.element.addEventListener("pointerdown", (event) => event.stopPropagation()); // the canvas would drag the node
        this.element.addEventListener("click", (event) => {
            const cell = this.cellAt(event);
            if (cell >= 0) onchoose(cell);
        });
        this.observer = new ResizeObserver(() => this.showChoice());
        this.observer.observe(this.element);
    }

    /** @param {Sheet} sheet */
    show(sheet) {
        this.sheet = sheet;
        this.image.src = viewURL(sheet.image);
        this.element.replaceChildren(this.image, this.mark);
        this.showChoice();
    }

    showChoice(choice = this.choice) {
        this.choice = choice;
        const cells = this.sheet?.cells ?? [], cell = cells[Math.min(choice, cells.length - 1)];
        this.mark.hidden = !cell;
        if (!cell || !this.sheet) return;
        const { scale, x, y } = this.placement(this.sheet), [left, top, width, height] = cell;
        Object.assign(this.mark.style, {
            left: `${x + scale * left}px`, top: `${y + scale * top}px`,
            width: `${scale * width}px`, height: `${scale * height}px`,
        });
    }

    /** Scale and corner of the sheet, in pixels of the element. @param {Sheet} sheet */
    placement({ width, height }) {
        const { clientWidth, clientHeight } = this.element, scale = Math.min(clientWidth / width, clientHeight / height);
        return { scale, x: (clientWidth - scale * width) / 2, y: (clientHeight - scale * height) / 2 };
    }

    /** The cell under the pointer, or -1. @param {MouseEvent} event */
    cellAt(event) {
        if (!this.sheet) return -1;
        const box = this.element.getBoundingClientRect(), zoom = box.width / this.element.clientWidth; // of the canvas
        const { scale, x, y } = this.placement(this.sheet);
        const across = ((event.clientX - box.left) / zoom - x) / scale;
        const down = ((event.clientY - box.top) / zoom - y) / scale;
        return this.sheet.cells.findIndex(([left, top, width, height]) =>
            across >= left && across < left + width && down >= top && down < top + height);
    }
}

/** @param {ComfyNode} node */
function addSheet(node) {
    const choice = widgetOf(node, "choice");
    if (!choice) return;
    const view = new SheetView((cell) => {
        choice.value = cell;
        choice.callback?.(cell);
    });
    const showChoice = () => view.showChoice(Number(choice.value));
    const widget = node.addDOMWidget("sheet", "CREPS_SHEET", view.element, {
        serialize: false, getMinHeight: () => MIN_HEIGHT, hideOnZoom: false,
    });
    widget.serialize = false;
    after(choice, "callback", showChoice);
    after(node, "onExecuted", (output) => {
        const [sheet] = output?.creps_sheet ?? [];
        if (!sheet) return;
        view.show(sheet);
        showChoice();
    });
    after(node, "onRemoved", () => view.observer.disconnect());
}

app.registerExtension({
    name: "creps.sheet",
    nodeCreated(/** @type {ComfyNode} */ node) {
        if (node.constructor.comfyClass === "CREPS_ContactSheet") addSheet(node);
    },
});
