// The viewport: the last image, moved and scaled to the present view until the next one arrives.

import { layoutOf, scaleOf } from "./view.mjs";
import { el } from "./dom.mjs";
import { Gestures } from "./gestures.mjs";

/** @import {Explorer} from "./explorer.mjs" */
/** @import {View} from "./scene.mjs" */
/** @import {Layout, Pair} from "./view.mjs" */
/** @typedef {{bitmap: ImageBitmap, view: View, layout: Layout, latent: string}} ViewportImage */

const MAX_SIDE = 2560; // device pixels that are requested
const INSET = 0.028; // margin around the frame, of the shorter side
const BACKGROUND = "#15181d";

export class Viewport {
    /** @param {Explorer} explorer */
    constructor(explorer) {
        this.explorer = explorer;
        this.canvas = el("canvas", {
            tabindex: 0, role: "application", class: "viewport", "data-capture-wheel": "true",
            "aria-label": "Picture. Drag to move, wheel to zoom, double click to return; "
                + "arrow keys, plus, minus and 0 do the same",
        });
        this.context = contextOf(this.canvas, { alpha: false });
        /** @type {Pair} in device pixels */
        this.size = [1, 1];
        /** @type {ViewportImage[]} the newest one last; below it a wider one of the same latent */
        this.images = [];
        this.framed = true; // whether the frame of the final image is drawn
        this.gestures = new Gestures(this);
        this.observer = new ResizeObserver(() => this.measure());
        this.observer.observe(this.canvas);
    }

    /** Measure the canvas on screen. An ancestor may scale it, of which a ResizeObserver knows nothing. */
    measure() {
        const box = this.canvas.getBoundingClientRect();
        if (!box.width || !box.height) return;
        const ratio = Math.min(devicePixelRatio || 1, MAX_SIDE / Math.max(box.width, box.height));
        const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
        if (width === this.size[0] && height === this.size[1]) return;
        this.size = [width, height];
        [this.canvas.width, this.canvas.height] = this.size;
        this.paint();
        this.explorer.invalidate();
    }

    /** @returns {Layout} */
    get layout() {
        const inset = this.framed ? Math.round(Math.min(...this.size) * INSET) : 0;
        return layoutOf(...this.size, this.explorer.scene, inset, this.explorer.generator?.aspect);
    }

    get motion() {
        return this.gestures.motion;
    }

    /** Whether a gesture or an animation of the view is running. */
    get busy() {
        return this.gestures.busy;
    }

    /** @param {ViewportImage} image */
    addImage(image) {
        const [bottom] = this.images;
        const wider = bottom && bottom.latent === image.latent && bottom.view.zoom < image.view.zoom * 0.98;
        for (const old of this.images.slice(wider ? 1 : 0)) old.bitmap.close();
        this.images = wider ? [bottom, image] : [image];
        this.paint();
    }

    /** Paint all images where the present view has them. */
    paint() {
        const { context, size, explorer } = this, newest = this.images.at(-1);
        context.setTransform(1, 0, 0, 1, 0, 0);
        context.fillStyle = BACKGROUND;
        context.fillRect(0, 0, ...size);
        if (!newest) return;
        const view = { ...explorer.view, rotation: explorer.view.rotation - this.gestures.tilt };
        context.imageSmoothingQuality = this.busy ? "medium" : "high";
        const covered = this.covers(newest, view);
        if (!covered) { // its colours, where there is no image yet
            context.globalAlpha = 0.4;
            context.drawImage(newest.bitmap, 0, 0, ...size);
            context.globalAlpha = 1;
        }
        for (const image of covered ? [newest] : this.images) this.paintImage(image, view);
        context.setTransform(1, 0, 0, 1, 0, 0);
        if (this.framed) this.paintFrame();
    }

    /** @param {ViewportImage} image @param {View} view */
    paintImage({ bitmap, view: own, layout }, view) {
        const { context, size } = this, k = scaleOf(view, this.layout);
        const angle = (view.rotation * Math.PI) / 180, cos = Math.cos(angle), sin = Math.sin(angle);
        const dx = (own.x - view.x) * k * layout.shape[0], dy = (own.y - view.y) * k * layout.shape[1];
        const scale = k / scaleOf(own, layout);
        context.setTransform(1, 0, 0, 1, size[0] / 2, size[1] / 2);
        context.translate(cos * dx - sin * dy, sin * dx + cos * dy);
        context.rotate(((view.rotation - own.rotation) * Math.PI) / 180);
        context.scale(scale, scale);
        context.drawImage(bitmap, -layout.width / 2, -layout.height / 2, layout.width, layout.height);
    }

    /** Whether an upright image fills the viewport in a view. @param {ViewportImage} image @param {View} view */
    covers({ view: own, layout }, view) {
        if (view.rotation !== own.rotation || view.rotation % 180) return false;
        const k = scaleOf(view, this.layout), scale = k / scaleOf(own, layout);
        const sides = [layout.width, layout.height];
        return [own.x - view.x, own.y - view.y].every(
            (by, i) => Math.abs(by) * k * layout.shape[i] <= (sides[i] * scale - this.size[i]) / 2 + 0.5);
    }

    /** Draw the frame of the final image, and dim what lies beyond it. */
    paintFrame() {
        const { context, size } = this, [left, top, width, height] = this.frameBox();
        context.fillStyle = "rgb(10 12 16 / 0.5)";
        context.beginPath();
        context.rect(0, 0, ...size);
        context.rect(left, top, width, height);
        context.fill("evenodd");
        context.strokeStyle = "rgb(255 255 255 / 0.75)";
        context.lineWidth = Math.max(1, Math.round(size[0] / (this.canvas.clientWidth || size[0])));
        context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
    }

    /** [left, top, width, height] of the frame, in device pixels. @returns {[number, number, number, number]} */
    frameBox() {
        const { width, height, sides } = this.layout;
        return [Math.round((width - sides[0]) / 2), Math.round((height - sides[1]) / 2), ...sides];
    }

    /** A small copy of the frame. @param {number} side the longer one, in pixels */
    thumbnail(side) {
        const [left, top, width, height] = this.frameBox(), scale = side / Math.max(width, height);
        const small = el("canvas", { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
        const from = /** @type {const} */ ([left + 1, top + 1, width - 2, height - 2]);
        contextOf(small).drawImage(this.canvas, ...from, 0, 0, small.width, small.height);
        return small;
    }

    close() {
        this.gestures.close();
        this.observer.disconnect();
        for (const image of this.images) image.bitmap.close();
        this.images = [];
    }
}

/** @param {HTMLCanvasElement} canvas @param {CanvasRenderingContext2DSettings} [settings] */
export function contextOf(canvas, settings) {
    return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", settings));
}
