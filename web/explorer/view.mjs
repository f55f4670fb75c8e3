// Geometry of views: from pixels of the viewport to the plane of the generator. Independent of the page.

import { DEFAULTS, LIMITS } from "./constants.mjs";
import { clamp } from "./scene.mjs";

/** @import {View} from "./scene.mjs" */
/** @typedef {[number, number]} Pair across and down */
/**
 * A viewport, in device pixels. In its middle lies the frame of the final image.
 * @typedef {object} Layout
 * @property {number} width
 * @property {number} height
 * @property {number} frame longer side of the frame
 * @property {Pair} sides of the frame
 * @property {Pair} shape of the generator's own frame; 1 is its longer side
 * @property {number} unit pixels per longer side of the generator's frame at zoom 1
 */

/** @type {Readonly<View>} */
export const HOME = DEFAULTS.view;

/**
 * The layout of a viewport.
 * @param {number} width
 * @param {number} height
 * @param {{width: number, height: number}} image the final image
 * @param {number} inset pixels between the frame and the edge
 * @param {Pair} aspect of the generator
 * @returns {Layout}
 */
export function layoutOf(width, height, image, inset, aspect = [1, 1]) {
    const room = [Math.max(width - 2 * inset, 1), Math.max(height - 2 * inset, 1)];
    const scale = Math.min(room[0] / image.width, room[1] / image.height);
    const longer = Math.max(image.width, image.height), frame = Math.max(1, Math.round(longer * scale));
    const sideOf = (/** @type {number} */ side) => Math.max(1, Math.round((frame * side) / longer));
    /** @type {Pair} */
    const sides = [sideOf(image.width), sideOf(image.height)];
    /** @type {Pair} */
    const shape = [aspect[0] / Math.max(...aspect), aspect[1] / Math.max(...aspect)];
    const unit = Math.max(...sides.map((side, i) => Math.max(side - 1, 1) / shape[i]));
    return { width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height)), frame, sides, shape, unit };
}

/** Device pixels per longer side of the generator's frame. @param {View} view @param {Layout} layout */
export const scaleOf = (view, layout) => view.zoom * layout.unit;

/**
 * Convert an offset in pixels of the viewport to the generator's frame, 0..1 across and down.
 * @param {View} view
 * @param {Layout} layout
 * @param {number} dx
 * @param {number} dy
 * @returns {Pair}
 */
export function toFrame(view, layout, dx, dy) {
    const k = scaleOf(view, layout), angle = (view.rotation * Math.PI) / 180;
    const cos = Math.cos(angle), sin = Math.sin(angle);
    return [(cos * dx + sin * dy) / k / layout.shape[0], (-sin * dx + cos * dy) / k / layout.shape[1]];
}

/**
 * The view after the image was dragged by an offset in pixels of the viewport.
 * @param {View} view
 * @param {Layout} layout
 * @param {number} dx
 * @param {number} dy
 * @returns {View}
 */
export function panned(view, layout, dx, dy) {
    const [x, y] = toFrame(view, layout, dx, dy);
    return { ...view, x: clamp(view.x - x, ...LIMITS.center), y: clamp(view.y - y, ...LIMITS.center) };
}

/**
 * The view zoomed by a factor about a point, given as an offset from the middle of the viewport in pixels.
 * @param {View} view
 * @param {Layout} layout
 * @param {number} factor
 * @param {number} dx
 * @param {number} dy
 * @returns {View}
 */
export function zoomed(view, layout, factor, dx, dy) {
    const zoom = clamp(view.zoom * factor, ...LIMITS.zoom);
    const [x, y] = toFrame(view, layout, dx, dy), moved = 1 - view.zoom / zoom;
    return {
        ...view,
        zoom,
        x: clamp(view.x + x * moved, ...LIMITS.center),
        y: clamp(view.y + y * moved, ...LIMITS.center),
    };
}

/**
 * The view on a straight flight from one view to another: the zoom changes by a constant factor per time.
 * @param {View} start
 * @param {View} goal
 * @param {number} t 0..1
 * @returns {View} with the rotation of `start`, but `goal` itself at 1
 */
export function flownTo(start, goal, t) {
    if (t === 1) return { ...goal };
    const growth = Math.log(goal.zoom / start.zoom);
    const moved = Math.abs(growth) < 1e-9 ? t : Math.expm1(-growth * t) / Math.expm1(-growth);
    return {
        x: start.x + (goal.x - start.x) * moved,
        y: start.y + (goal.y - start.y) * moved,
        zoom: start.zoom * Math.exp(growth * t),
        rotation: start.rotation,
    };
}

/** Smoothstep: 0..1 to 0..1, slow at both ends. @param {number} t */
export const smooth = (t) => t * t * (3 - 2 * t);

/** The zoom as text: "x1", "x12.5", "x3 400" with a real multiplication sign. @param {number} zoom */
export function zoomText(zoom) {
    const digits = zoom < 10 ? 2 : zoom < 100 ? 1 : 0;
    if (zoom >= 1e6) return `\u00d7${zoom.toExponential(1)}`;
    const text = zoom < 0.1 ? zoom.toPrecision(2) : zoom.toFixed(digits).replace(/\.?0+$/, (end) => (digits ? "" : end));
    return `\u00d7${text.replace(/\B(?=(\d{3})+$)/g, "\u2009")}`;
}
