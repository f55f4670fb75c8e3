// Saving the picture as a file: only where the server offers it.

import { button, el, select } from "./dom.mjs";

export class Saver {
    /** @param {object} owner: `scene`, `source`, send(message). */
    constructor(owner) {
        this.owner = owner;
        this.format = select("Kind of file", [["png", "PNG"], ["tif", "TIFF, tiled, with a pyramid"]], () => {});
        this.bits = select("Bits per channel", [["8", "8 bits"], ["16", "16 bits"]], () => {});
        this.size = el("p", { class: "hint" });
        this.bar = el("progress", { max: 1, value: 0, "aria-label": "Saving" });
        this.text = el("p", { class: "hint", role: "status" });
        this.go = el("button", { type: "button", class: "primary", onclick: () => this.begin() }, "Save picture");
        this.stop = el("button", { type: "button", onclick: () => owner.send({ stop: true }) }, "Stop");
        this.element = el("div", { class: "popover", role: "dialog", "aria-label": "Save the picture", hidden: true },
            el("h2", {}, "Save the picture"), this.size,
            el("div", { class: "row" }, this.format, this.bits),
            this.bar, this.text,
            el("div", { class: "row" }, this.go, this.stop));
        this.button = button("save", "Save the picture", () => this.toggle(), "S", { "aria-expanded": "false" });
        this.works(false);
    }

    toggle(open = this.element.hidden) {
        this.element.hidden = !open;
        this.button.setAttribute("aria-expanded", String(open));
        this.show();
        if (open) this.go.focus();
    }

    show() {
        const { width, height } = this.owner.scene;
        const megapixels = (width * height) / 1e6;
        this.size.textContent = `${width} \u00d7 ${height} pixels, ${megapixels < 10 ? megapixels.toFixed(1) : Math.round(megapixels)} MP, `
            + "each computed for this size.";
    }

    begin() {
        this.text.textContent = "";
        this.owner.send({ save: {
            scene: this.owner.scene, source: this.owner.source, format: this.format.value, bits: Number(this.bits.value),
        } });
    }

    works(on) {
        this.bar.hidden = this.stop.hidden = !on;
        this.go.hidden = on;
    }

    heard({ done, file, size, error, stopped }) {
        this.works(done !== undefined);
        if (done !== undefined) this.bar.value = done;
        else if (file) this.text.textContent = `${file}, ${(size / 1e6).toFixed(1)} MB`;
        else this.text.textContent = stopped ? "Stopped. The same picture goes on where it was." : error;
    }
}
