// The dialog that saves the image as a file; only where the server offers it.

import { button, el, select } from "./dom.mjs";

/** @import {Scene} from "./scene.mjs" */
/**
 * Result of the server: progress, then a file, an error, or `stopped`.
 * @typedef {{done?: number, file?: string, size?: number, error?: string, stopped?: boolean}} Saving
 */

export class SaveDialog {
    /** @param {{scene: Scene, source: string, send: (message: object) => void}} explorer */
    constructor(explorer) {
        this.explorer = explorer;
        this.format = select("Kind of file", [["png", "PNG"], ["tif", "TIFF, tiled, with a pyramid"]], () => {});
        this.bits = select("Bits per channel", [["8", "8 bits"], ["16", "16 bits"]], () => {});
        this.size = el("p", { class: "hint" });
        this.bar = el("progress", { max: 1, value: 0, "aria-label": "Saving" });
        this.text = el("p", { class: "hint", role: "status" });
        this.saveButton = el("button", { type: "button", class: "primary", onclick: () => this.start() }, "Save picture");
        this.stopButton = el("button", { type: "button", onclick: () => explorer.send({ stop: true }) }, "Stop");
        this.element = el("div", { class: "popover", role: "dialog", "aria-label": "Save the picture", hidden: true },
            el("h2", {}, "Save the picture"), this.size,
            el("div", { class: "row" }, this.format, this.bits),
            this.bar, this.text,
            el("div", { class: "row" }, this.saveButton, this.stopButton));
        this.button = button("save", "Save the picture", () => this.toggle(), "S", { "aria-expanded": "false" });
        this.button.hidden = true;
        this.showBusy(false);
    }

    toggle(open = this.element.hidden) {
        this.element.hidden = !open;
        this.button.setAttribute("aria-expanded", String(open));
        this.showSize();
        if (open) this.saveButton.focus();
    }

    showSize() {
        const { width, height } = this.explorer.scene, megapixels = (width * height) / 1e6;
        const area = megapixels < 10 ? megapixels.toFixed(1) : Math.round(megapixels);
        this.size.textContent = `${width} \u00d7 ${height} pixels, ${area} MP, each computed for this size.`;
    }

    start() {
        this.text.textContent = "";
        const { scene, source } = this.explorer;
        this.explorer.send({ save: { scene, source, format: this.format.value, bits: Number(this.bits.value) } });
    }

    /** @param {boolean} busy */
    showBusy(busy) {
        this.bar.hidden = this.stopButton.hidden = !busy;
        this.saveButton.hidden = busy;
    }

    /** Show the progress or the result. @param {Saving} saving */
    show({ done, file, size = 0, error = "", stopped }) {
        this.showBusy(done !== undefined);
        if (done !== undefined) this.bar.value = done;
        else if (file) this.text.textContent = `${file}, ${(size / 1e6).toFixed(1)} MB`;
        else this.text.textContent = stopped ? "Stopped. Saving the same picture again resumes here." : error;
    }
}
