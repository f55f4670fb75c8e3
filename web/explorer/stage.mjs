// The stage: the last picture, moved and scaled to where it belongs until the new one is there, and the gestures.

import { clamp, HOME, LIMITS, panned, scaleOf, stageOf, zoomed } from "./scene.mjs";
import { el } from "./dom.mjs";

const MOST = 2560; // device pixels per side that are asked for
const GLIDE_MS = 260; // of a pan that was let go
const ZOOM_MS = 70; // of a wheel's notch
const HOME_MS = 420;
const TURN_MS = 260;

export class Stage {
    /**
     * @param {object} owner: `scene` with the size of the picture, `view` (read and written), and the functions
     *   moved(time) for every change of the view by hand, and drawn(frame) for every new picture that is on screen.
     */
    constructor(owner) {
        this.owner = owner;
        this.canvas = el("canvas", {
            tabindex: 0, role: "application", class: "stage", "data-capture-wheel": "true",
            "aria-label": "Picture. Drag to move, wheel to zoom, double click to return; "
                + "arrow keys, plus, minus and 0 do the same",
        });
        this.context = this.canvas.getContext("2d", { alpha: false });
        this.size = [1, 1];
        this.frames = []; // the widest of this latent below, the newest above
        this.pointers = new Map();
        this.speed = [0, 0];
        this.tilt = 0; // degrees that a turn still has to go
        this.framed = true;
        this.motion = null; // what goes on by itself: (now) => whether it goes on
        this.listen();
        this.observer = new ResizeObserver(() => this.measure());
        this.observer.observe(this.canvas);
        this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    }

    /** The size of the stage in device pixels; ComfyUI scales the element with its canvas. */
    measure() {
        const box = this.canvas.getBoundingClientRect();
        if (!box.width || !box.height) return;
        const ratio = Math.min(devicePixelRatio || 1, MOST / Math.max(box.width, box.height));
        const size = [Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio))];
        if (size[0] === this.size[0] && size[1] === this.size[1]) return;
        this.size = size;
        [this.canvas.width, this.canvas.height] = size;
        this.paint();
        this.owner.resized();
    }

    /** What is asked for, see `stageOf`. */
    get stage() {
        const inset = this.framed ? Math.round(Math.min(...this.size) * 0.028) : 0;
        return stageOf(...this.size, this.owner.scene, inset, this.owner.about?.aspect);
    }

    /** Whether a gesture, or what follows it, goes on. */
    get busy() {
        return this.pointers.size > 0 || this.motion !== null;
    }

    // ImageDataset

    /** Show a new picture: `{bitmap, view, stage, latent, sharp}`. */
    take(frame) {
        const [bottom] = this.frames;
        const wide = bottom && bottom.latent === frame.latent && bottom.view.zoom < frame.view.zoom * 0.98;
        for (const old of this.frames.slice(wide ? 1 : 0)) old.bitmap.close();
        this.frames = wide ? [bottom, frame] : [frame];
        this.paint();
    }

    /** Draw all pictures where the present view has them. */
    paint() {
        const { context, size, owner } = this;
        if (!this.frames.length) {
            context.fillStyle = "#15181d";
            context.fillRect(0, 0, ...size);
            return;
        }
        const view = owner.view, k = scaleOf(view, this.stage);
        const turned = view.rotation - this.tilt;
        const angle = (turned * Math.PI) / 180, cos = Math.cos(angle), sin = Math.sin(angle);
        context.setTransform(1, 0, 0, 1, 0, 0);
        context.fillStyle = "#15181d";
        context.fillRect(0, 0, ...size);
        context.imageSmoothingQuality = this.busy ? "medium" : "high";
        const newest = this.frames.at(-1);
        const covered = this.covers(newest, view, k, turned), frames = covered ? [newest] : this.frames;
        if (!covered) { // its colours, where there is no picture yet
            context.globalAlpha = 0.4;
            context.drawImage(newest.bitmap, 0, 0, ...size);
            context.globalAlpha = 1;
        }
        for (const { bitmap, view: shown, stage } of frames) {
            const dx = (shown.x - view.x) * k * stage.shape[0], dy = (shown.y - view.y) * k * stage.shape[1];
            const scale = k / scaleOf(shown, stage), turn = ((turned - shown.rotation) * Math.PI) / 180;
            context.setTransform(1, 0, 0, 1, size[0] / 2, size[1] / 2);
            context.translate(cos * dx - sin * dy, sin * dx + cos * dy);
            context.rotate(turn);
            context.scale(scale, scale);
            context.drawImage(bitmap, -stage.width / 2, -stage.height / 2, stage.width, stage.height);
        }
        context.setTransform(1, 0, 0, 1, 0, 0);
        if (this.framed) this.paintFrame();
    }

    /** Whether an upright frame fills the stage, as the present view has it. */
    covers({ view: shown, stage }, view, k, turned) {
        if (turned !== shown.rotation || turned % 180) return false;
        const scale = k / scaleOf(shown, stage), away = [shown.x - view.x, shown.y - view.y];
        const sides = [stage.width, stage.height];
        return away.every((by, i) => Math.abs(by) * k * stage.shape[i] <= (sides[i] * scale - this.size[i]) / 2 + 0.5);
    }

    /** The frame of the final picture: what lies beyond it is dim. */
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

    /** [left, top, width, height] of the frame, in device pixels. */
    frameBox() {
        const { width, height, sides } = this.stage;
        return [Math.round((width - sides[0]) / 2), Math.round((height - sides[1]) / 2), ...sides];
    }

    /** A small picture of the frame, for the filmstrip: a canvas of at most so many pixels per side. */
    thumbnail(side) {
        const [left, top, width, height] = this.frameBox(), scale = side / Math.max(width, height);
        const small = el("canvas", { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
        small.getContext("2d").drawImage(this.canvas, left + 1, top + 1, width - 2, height - 2, 0, 0, small.width, small.height);
        return small;
    }

    // Gestures

    listen() {
        const { canvas } = this, on = (type, act, options) => canvas.addEventListener(type, act, options);
        on("pointerdown", (event) => this.down(event));
        on("pointermove", (event) => this.move(event));
        for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) on(type, (event) => this.up(event));
        on("wheel", (event) => this.wheel(event), { passive: false });
        on("dblclick", () => this.goHome());
        on("keydown", (event) => this.keydown(event));
        on("contextmenu", (event) => event.preventDefault());
    }

    /** A point of an event, from the middle of the stage in its pixels. */
    point(event) {
        const box = this.canvas.getBoundingClientRect();
        return [
            ((event.clientX - box.left) / box.width - 0.5) * this.size[0],
            ((event.clientY - box.top) / box.height - 0.5) * this.size[1],
        ];
    }

    down(event) {
        if (event.button > 0) return;
        this.canvas.focus({ preventScroll: true, focusVisible: false });
        this.motion = null;
        this.canvas.setPointerCapture(event.pointerId);
        this.pointers.set(event.pointerId, this.point(event));
        this.speed = [0, 0];
        this.last = event.timeStamp;
        this.canvas.classList.add("held");
    }

    move(event) {
        const before = this.pointers.get(event.pointerId);
        if (!before) return;
        const now = this.point(event), { owner, stage } = this;
        if (this.pointers.size === 1) {
            const step = [now[0] - before[0], now[1] - before[1]];
            owner.view = panned(owner.view, stage, ...step);
            const ms = Math.max(event.timeStamp - this.last, 1), share = clamp(ms / 60, 0, 1);
            this.speed = this.speed.map((speed, i) => speed + share * (step[i] / ms - speed));
            this.last = event.timeStamp;
        } else {
            const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
            const factor = Math.hypot(now[0] - other[0], now[1] - other[1])
                / Math.max(Math.hypot(before[0] - other[0], before[1] - other[1]), 1);
            const moved = panned(owner.view, stage, (now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
            owner.view = zoomed(moved, stage, factor, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
        }
        this.pointers.set(event.pointerId, now);
        this.changed(event.timeStamp);
    }

    up(event) {
        if (!this.pointers.delete(event.pointerId) || this.pointers.size) return;
        this.canvas.classList.remove("held");
        const resting = event.timeStamp - this.last > 60;
        if (event.type !== "pointerup" || resting || Math.hypot(...this.speed) < 0.15 || this.calm.matches) {
            this.owner.moved();
            return;
        }
        let [vx, vy] = this.speed, last = performance.now();
        this.run((now) => {
            const ms = now - last, fade = Math.exp(-ms / GLIDE_MS);
            last = now;
            this.owner.view = panned(this.owner.view, this.stage, vx * ms, vy * ms);
            [vx, vy] = [vx * fade, vy * fade];
            return Math.hypot(vx, vy) > 0.02;
        });
    }

    wheel(event) {
        event.preventDefault();
        const unit = [1, 18, 120][event.deltaMode] ?? 1; // pixels, lines, pages
        const amount = clamp(event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.0018), -1, 1);
        this.zoomBy(Math.exp(-amount), ...this.point(event), event.timeStamp);
    }

    /** Zoom smoothly by a factor about a point. */
    zoomBy(factor, dx, dy, time) {
        const left = (this.zooming?.left ?? 0) + Math.log(factor);
        const goal = clamp(Math.log(this.owner.view.zoom) + left, ...LIMITS.zoom.map(Math.log));
        this.zooming = { left: goal - Math.log(this.owner.view.zoom), dx, dy };
        if (this.calm.matches) {
            this.owner.view = zoomed(this.owner.view, this.stage, Math.exp(this.zooming.left), dx, dy);
            this.zooming = null;
            this.changed(time);
            return;
        }
        if (this.motion && this.motion === this.zoomMotion) return;
        let last = performance.now() - 8;
        this.zoomMotion = (now) => {
            const zooming = this.zooming;
            if (!zooming) return false;
            const share = 1 - Math.exp(-(now - last) / ZOOM_MS), ends = Math.abs(zooming.left) < 0.004;
            last = now;
            const step = ends ? zooming.left : zooming.left * share;
            this.owner.view = zoomed(this.owner.view, this.stage, Math.exp(step), zooming.dx, zooming.dy);
            zooming.left -= step;
            if (ends) this.zooming = null;
            return !ends;
        };
        this.run(this.zoomMotion, time);
    }

    /** Fly to a view. */
    goTo(goal, ms = HOME_MS) {
        const start = { ...this.owner.view }, begin = performance.now();
        this.zooming = null;
        if (this.calm.matches || ms === 0) {
            this.owner.view = { ...goal };
            this.changed();
            return;
        }
        const growth = Math.log(goal.zoom / start.zoom), turn = goal.rotation - start.rotation;
        this.run((now) => {
            const t = clamp((now - begin) / ms, 0, 1), eased = t * t * (3 - 2 * t);
            const moved = Math.abs(growth) < 1e-9 ? eased : Math.expm1(-growth * eased) / Math.expm1(-growth);
            this.owner.view = t === 1 ? { ...goal } : {
                x: start.x + (goal.x - start.x) * moved,
                y: start.y + (goal.y - start.y) * moved,
                zoom: start.zoom * Math.exp(growth * eased),
                rotation: start.rotation,
            };
            if (t === 1 && turn) this.spin(turn);
            return t < 1;
        });
    }

    goHome() {
        const rotation = 360 * Math.round(this.owner.view.rotation / 360);
        this.goTo({ ...HOME, rotation });
    }

    /** Turn by so many degrees: the view turns at once, what is seen follows. */
    turn(degrees) {
        const { owner } = this;
        owner.view = { ...owner.view, rotation: (owner.view.rotation + degrees) % 360 };
        this.changed();
        this.spin(degrees);
    }

    spin(degrees) {
        if (this.calm.matches) return;
        const begin = performance.now();
        const step = (now) => {
            const t = clamp((now - begin) / TURN_MS, 0, 1);
            this.tilt = degrees * (1 - t * t * (3 - 2 * t));
            this.paint();
            if (t < 1) requestAnimationFrame(step);
        };
        step(begin);
    }

    keydown(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const far = Math.max(...this.size) * (event.shiftKey ? 0.4 : 0.08), { view } = this.owner;
        const moves = { ArrowLeft: [far, 0], ArrowRight: [-far, 0], ArrowUp: [0, far], ArrowDown: [0, -far] };
        if (event.key in moves) this.goTo(panned(view, this.stage, ...moves[event.key]), 140);
        else if (event.key === "+" || event.key === "=") this.zoomBy(1.3, 0, 0);
        else if (event.key === "-" || event.key === "_") this.zoomBy(1 / 1.3, 0, 0);
        else if (event.key === "0" || event.key === "Home") this.goHome();
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    /** Let something go on by itself, in place of what did so before. */
    run(motion, time) {
        this.motion = motion;
        const step = (now) => {
            if (this.motion !== motion) return;
            if (!motion(now)) this.motion = null;
            this.changed(time);
            time = undefined;
            if (this.motion === motion) requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
    }

    changed(time) {
        this.paint();
        this.owner.moved(time);
    }

    close() {
        this.motion = null;
        this.observer.disconnect();
        for (const frame of this.frames) frame.bitmap.close();
        this.frames = [];
    }
}
