// Gestures on the viewport, and the animations of the view that follow them.

import { LIMITS } from "./constants.mjs";
import { clamp } from "./scene.mjs";
import { flownTo, HOME, panned, smooth, zoomed } from "./view.mjs";

/** @import {View} from "./scene.mjs" */
/** @import {Pair} from "./view.mjs" */
/** @import {Viewport} from "./viewport.mjs" */
/** @typedef {(now: number) => boolean} Motion changes the view; returns whether it continues */

const GLIDE_MS = 260; // time constant of a pan after release
const MIN_GLIDE = 0.15; // pixels per millisecond
const ZOOM_MS = 70; // time constant of a notch of the wheel
const FLIGHT_MS = 420;
const TURN_MS = 260;
const STEP_MS = 140; // flight of an arrow key
const WHEEL_UNITS = [1, 18, 120]; // pixels, lines, pages: `WheelEvent.deltaMode`

export class Gestures {
    /** @param {Viewport} viewport */
    constructor(viewport) {
        this.viewport = viewport;
        this.explorer = viewport.explorer;
        this.canvas = viewport.canvas;
        /** @type {Map<number, Pair>} pointers that are down */
        this.pointers = new Map();
        /** @type {Pair} of the pan, in pixels per millisecond */
        this.speed = [0, 0];
        this.lastMove = 0;
        this.tilt = 0; // degrees that a turn has left
        /** @type {Motion | null} the running animation of the view */
        this.motion = null;
        /** @type {Motion | null} */
        this.zoomMotion = null;
        /** @type {{left: number, dx: number, dy: number} | null} log of the factor that is left, and about which point */
        this.zooming = null;
        this.reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
        this.listen();
    }

    get busy() {
        return this.pointers.size > 0 || this.motion !== null;
    }

    get view() {
        return this.explorer.view;
    }

    set view(view) {
        this.explorer.view = view;
    }

    listen() {
        const { canvas } = this;
        canvas.addEventListener("pointerdown", (event) => this.onPointerDown(event));
        canvas.addEventListener("pointermove", (event) => this.onPointerMove(event));
        canvas.addEventListener("pointerup", (event) => this.onPointerUp(event));
        canvas.addEventListener("pointercancel", (event) => this.onPointerUp(event));
        canvas.addEventListener("lostpointercapture", (event) => this.onPointerUp(event));
        canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
        canvas.addEventListener("dblclick", () => this.goHome());
        canvas.addEventListener("keydown", (event) => this.onKeyDown(event));
        canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    }

    /** Position of an event from the middle of the viewport, in its pixels. @param {MouseEvent} event @returns {Pair} */
    position(event) {
        const box = this.canvas.getBoundingClientRect(), { size } = this.viewport;
        return [
            ((event.clientX - box.left) / box.width - 0.5) * size[0],
            ((event.clientY - box.top) / box.height - 0.5) * size[1],
        ];
    }

    /** @param {PointerEvent} event */
    onPointerDown(event) {
        if (event.button > 0) return;
        this.canvas.focus(/** @type {FocusOptions} */ ({ preventScroll: true, focusVisible: false }));
        if (this.motion) {
            this.motion = this.zooming = null;
            this.changed(); // the sharp frame waits for the end of a motion
        }
        this.canvas.setPointerCapture(event.pointerId);
        this.pointers.set(event.pointerId, this.position(event));
        this.speed = [0, 0];
        this.lastMove = event.timeStamp;
        this.canvas.classList.add("dragging");
    }

    /** @param {PointerEvent} event */
    onPointerMove(event) {
        const before = this.pointers.get(event.pointerId);
        if (!before) return;
        const now = this.position(event);
        const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
        if (other) this.pinch(before, now, other);
        else this.pan(now[0] - before[0], now[1] - before[1], event.timeStamp);
        this.pointers.set(event.pointerId, now);
        this.changed(event.timeStamp);
    }

    /** @param {number} dx @param {number} dy @param {number} time */
    pan(dx, dy, time) {
        this.view = panned(this.view, this.viewport.layout, dx, dy);
        const ms = Math.max(time - this.lastMove, 1), share = clamp(ms / 60, 0, 1), [vx, vy] = this.speed;
        this.speed = [vx + share * (dx / ms - vx), vy + share * (dy / ms - vy)];
        this.lastMove = time;
    }

    /**
     * Zoom about the middle of two pointers, one of which moves.
     * @param {Pair} before
     * @param {Pair} now
     * @param {Pair} other
     */
    pinch(before, now, other) {
        const { layout } = this.viewport;
        const factor = Math.hypot(now[0] - other[0], now[1] - other[1])
            / Math.max(Math.hypot(before[0] - other[0], before[1] - other[1]), 1);
        const moved = panned(this.view, layout, (now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
        this.view = zoomed(moved, layout, factor, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    }

    /** @param {PointerEvent} event */
    onPointerUp(event) {
        if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
        this.canvas.classList.remove("dragging");
        const resting = event.timeStamp - this.lastMove > 60, slow = Math.hypot(...this.speed) < MIN_GLIDE;
        if (event.type !== "pointerup" || resting || slow || this.reducedMotion.matches) this.changed();
        else this.glide();
    }

    /** Continue a pan after release. */
    glide() {
        let [vx, vy] = this.speed, last = performance.now();
        this.run((now) => {
            const ms = now - last, fade = Math.exp(-ms / GLIDE_MS);
            last = now;
            this.view = panned(this.view, this.viewport.layout, vx * ms, vy * ms);
            [vx, vy] = [vx * fade, vy * fade];
            return Math.hypot(vx, vy) > 0.02;
        });
    }

    /** @param {WheelEvent} event */
    onWheel(event) {
        event.preventDefault();
        const pixels = event.deltaY * (WHEEL_UNITS[event.deltaMode] ?? 1);
        const amount = clamp(pixels * (event.ctrlKey ? 0.01 : 0.0018), -1, 1);
        this.zoomBy(Math.exp(-amount), ...this.position(event), event.timeStamp);
    }

    /**
     * Zoom smoothly by a factor about a point.
     * @param {number} factor
     * @param {number} dx
     * @param {number} dy
     * @param {number} [time] of the event
     */
    zoomBy(factor, dx, dy, time) {
        const start = Math.log(this.view.zoom), [low, high] = LIMITS.zoom;
        const goal = clamp(start + (this.zooming?.left ?? 0) + Math.log(factor), Math.log(low), Math.log(high));
        this.zooming = { left: goal - start, dx, dy };
        if (this.reducedMotion.matches) {
            this.view = zoomed(this.view, this.viewport.layout, Math.exp(this.zooming.left), dx, dy);
            this.zooming = null;
            this.changed(time);
            return;
        }
        if (this.motion && this.motion === this.zoomMotion) return;
        let last = performance.now() - 8;
        this.zoomMotion = (now) => {
            const { zooming } = this;
            if (!zooming) return false;
            const share = 1 - Math.exp(-(now - last) / ZOOM_MS), ends = Math.abs(zooming.left) < 0.004;
            last = now;
            const step = ends ? zooming.left : zooming.left * share;
            this.view = zoomed(this.view, this.viewport.layout, Math.exp(step), zooming.dx, zooming.dy);
            zooming.left -= step;
            if (ends) this.zooming = null;
            return !ends;
        };
        this.run(this.zoomMotion, time);
    }

    /** Fly to a view. @param {View} goal */
    goTo(goal, ms = FLIGHT_MS) {
        const start = { ...this.view }, begin = performance.now(), turn = goal.rotation - start.rotation;
        this.zooming = null;
        if (this.reducedMotion.matches || ms === 0) {
            this.view = { ...goal };
            this.changed();
            return;
        }
        this.run((now) => {
            const t = clamp((now - begin) / ms, 0, 1);
            this.view = flownTo(start, goal, smooth(t));
            if (t === 1 && turn) this.animateTurn(turn);
            return t < 1;
        });
    }

    goHome() {
        const rotation = 360 * Math.round(this.view.rotation / 360);
        this.goTo({ ...HOME, rotation });
    }

    /** Rotate: the view at once, the image on screen smoothly. @param {number} degrees */
    turn(degrees) {
        this.view = { ...this.view, rotation: (this.view.rotation + degrees) % 360 };
        this.changed();
        this.animateTurn(degrees);
    }

    /** @param {number} degrees */
    animateTurn(degrees) {
        if (this.reducedMotion.matches) return;
        const begin = performance.now();
        const step = (/** @type {number} */ now) => {
            const t = clamp((now - begin) / TURN_MS, 0, 1);
            this.tilt = degrees * (1 - smooth(t));
            this.viewport.paint();
            if (t < 1) requestAnimationFrame(step);
        };
        step(begin);
    }

    /** @param {KeyboardEvent} event */
    onKeyDown(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const far = Math.max(...this.viewport.size) * (event.shiftKey ? 0.4 : 0.08);
        /** @type {Record<string, Pair>} */
        const moves = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] };
        if (event.key in moves) this.goTo(panned(this.view, this.viewport.layout, ...moves[event.key]), STEP_MS);
        else if (event.key === "+" || event.key === "=") this.zoomBy(1.3, 0, 0);
        else if (event.key === "-" || event.key === "_") this.zoomBy(1 / 1.3, 0, 0);
        else if (event.key === "0" || event.key === "Home") this.goHome();
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    /** Animate the view, in place of the running animation. @param {Motion} motion @param {number} [time] of the event */
    run(motion, time) {
        this.motion = motion;
        const step = (/** @type {number} */ now) => {
            if (this.motion !== motion) return;
            if (!motion(now)) this.motion = null;
            this.changed(time);
            time = undefined;
            if (this.motion === motion) requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
    }

    /** @param {number} [time] of the event */
    changed(time) {
        this.viewport.paint();
        this.explorer.onViewChanged(time);
    }

    close() {
        this.motion = null;
    }
}
