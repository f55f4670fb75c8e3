// The filmstrip: keyframes to select, reorder, time and remove, and the film through them.

import { DEFAULTS, EASINGS, LIMITS, MAX_FRAMES, MAX_KEYFRAMES } from "./constants.mjs";
import { copy, filmFrames, filmSeconds, readShot } from "./scene.mjs";
import { button, el, hasFocus, numberField, select, show } from "./dom.mjs";
import { contextOf } from "./viewport.mjs";

/** @import {Explorer} from "./explorer.mjs" */
/** @import {Keyframe} from "./scene.mjs" */

const THUMBNAIL = 160; // pixels
const MIN_DRAG = 5; // pixels, before a drag reorders

export class Film {
    /** @param {Explorer} explorer */
    constructor(explorer) {
        this.explorer = explorer;
        /** @type {number | null} in the film, in seconds, while it is shown */
        this.time = null;
        this.playing = false;
        this.dragged = false; // whether the last press on a tile was a drag
        /** @type {WeakMap<Keyframe, HTMLCanvasElement>} */
        this.thumbnails = new WeakMap();
        this.strip = el("ol", { class: "keys", "aria-label": "Key frames" });
        this.playButton = button("play", "Play", () => this.toggle(), "space");
        this.playIcon = "play";
        this.loopButton = button("loop", "Lead back to the first key: a loop", () => {
            this.scene.closed = !this.scene.closed;
            explorer.onKeyframesChanged();
        }, "", { "aria-pressed": "false" });
        this.slider = el("input", {
            type: "range", class: "time", min: 0, step: "any", "aria-label": "Time in the film",
            oninput: () => this.seek(this.slider.valueAsNumber),
        });
        this.total = el("output", { class: "total" });
        this.fps = numberField("Frames per second of the film", {
            min: LIMITS.fps[0], max: LIMITS.fps[1], class: "narrow",
            onchange: (value) => {
                this.scene.fps = value;
                explorer.onKeyframesChanged();
            },
        });
        this.easing = select("How a key is reached", EASINGS.map((name) => /** @type {const} */ ([name, name])), (value) => {
            this.scene.easing = value;
            explorer.onKeyframesChanged();
        });
        this.element = el("section", { class: "film", "aria-label": "Film" },
            el("div", { class: "film-row" }, this.playButton, this.slider, this.total, this.loopButton,
                el("label", { class: "unit" }, this.fps, "fps"), this.easing),
            this.strip);
    }

    get scene() {
        return this.explorer.scene;
    }

    /**
     * Add the shot on screen as a keyframe.
     * @param {HTMLCanvasElement | null} thumbnail may come later
     * @returns {boolean} whether there was room
     */
    add(thumbnail) {
        const { scene } = this;
        if (scene.keys.length >= MAX_KEYFRAMES) return false;
        const key = { ...copy(readShot(scene)), seconds: DEFAULTS.seconds };
        scene.keys.push(key);
        if (thumbnail) this.thumbnails.set(key, thumbnail);
        this.explorer.onKeyframesChanged();
        this.strip.lastElementChild?.scrollIntoView({ block: "nearest", inline: "nearest" });
        return true;
    }

    /** The first keyframe without a thumbnail, if there is one. */
    get withoutThumbnail() {
        return this.scene.keys.find((key) => !this.thumbnails.has(key));
    }

    /** @param {Keyframe} key @param {ImageBitmap} bitmap */
    setThumbnail(key, bitmap) {
        const scale = THUMBNAIL / Math.max(bitmap.width, bitmap.height);
        const canvas = el("canvas", {
            width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)),
        });
        contextOf(canvas).drawImage(bitmap, 0, 0, canvas.width, canvas.height);
        this.thumbnails.set(key, canvas);
        this.show();
    }

    // Playing

    toggle() {
        if (this.playing) this.pause();
        else if (filmSeconds(this.scene)) this.play();
    }

    play() {
        if (this.time === null || this.time >= filmSeconds(this.scene)) this.time = 0;
        this.playing = true;
        let last = performance.now();
        const step = (/** @type {number} */ now) => {
            if (!this.playing) return;
            const total = filmSeconds(this.scene);
            let time = (this.time ?? 0) + Math.min(now - last, 250) / 1000;
            last = now;
            if (this.scene.closed) time %= total;
            else if (time >= total) [time, this.playing] = [total, false];
            this.time = time;
            this.explorer.invalidate();
            this.showTime();
            if (this.playing) requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
        this.showTime();
    }

    pause() {
        this.plays = false;
        this.showTime();
    }

    /** @param {number} time in seconds */
    seek(time) {
        this.playing = false;
        this.time = time;
        this.explorer.invalidate();
        this.showTime();
    }

    /** Return from the film to the scene's own shot. */
    leave() {
        if (this.time === null && !this.playing) return;
        [this.time, this.playing] = [null, false];
        this.showTime();
    }

    // Display

    show() {
        const { scene } = this;
        this.element.hidden = scene.keys.length === 0;
        this.loopButton.setAttribute("aria-pressed", String(scene.closed));
        show(this.fps, scene.fps);
        show(this.easing, scene.easing);
        this.strip.replaceChildren(...scene.keys.map((key, i) => this.tile(key, i)));
        this.showTime();
    }

    showTime() {
        const { scene } = this, seconds = filmSeconds(scene), frames = filmFrames(scene);
        this.slider.max = String(seconds || 1);
        this.slider.disabled = this.playButton.disabled = !seconds;
        this.slider.value = String(this.time ?? 0);
        const name = this.playing ? "pause" : "play";
        if (this.playIcon !== name) {
            const fresh = button(name, this.playing ? "Pause" : "Play", () => this.toggle(), "space");
            fresh.disabled = this.playButton.disabled;
            const focused = hasFocus(this.playButton);
            this.playButton.replaceWith(fresh);
            [this.playButton, this.playIcon] = [fresh, name];
            if (focused) fresh.focus();
        }
        const count = frames > MAX_FRAMES ? `${frames} frames: at most ${MAX_FRAMES} are possible` : `${frames} frames`;
        this.total.textContent = seconds ? `${(this.time ?? 0).toFixed(1)} / ${seconds.toFixed(1)} s, ${count}`
            : "one more key makes a film: K";
    }

    /** @param {Keyframe} key @param {number} i */
    tile(key, i) {
        const { scene } = this, last = i === scene.keys.length - 1 && !scene.closed;
        const open = el("button", {
            type: "button", class: "thumb", title: "Show; drag to reorder, or arrow keys",
            "aria-label": `Key ${i + 1}: seed ${key.seed}. Arrow keys reorder, Delete removes`,
            onclick: () => this.dragged || this.explorer.showKeyframe(key),
            onkeydown: (/** @type {KeyboardEvent} */ event) => this.onKeyDown(event, i),
        }, this.thumbnails.get(key) ?? "");
        const seconds = numberField("Seconds to the next key", {
            min: LIMITS.seconds[0], max: LIMITS.seconds[1], step: 0.5, class: "seconds", value: key.seconds,
            onchange: (value) => {
                key.seconds = value;
                this.explorer.onKeyframesChanged();
            },
        });
        const tile = el("li", { class: "tile" }, open,
            button("remove", `Remove key ${i + 1}`, () => this.remove(i), "", { class: "icon remove" }),
            last ? el("span", { class: "unit end" }, "end") : el("label", { class: "unit" }, seconds, "s"));
        open.addEventListener("pointerdown", (event) => this.drag(event, tile, i));
        return tile;
    }

    /** @param {KeyboardEvent} event @param {number} i */
    onKeyDown(event, i) {
        const to = event.key === "ArrowLeft" ? i - 1 : event.key === "ArrowRight" ? i + 1 : undefined;
        if (to !== undefined) this.reorder(i, to);
        else if (event.key === "Delete" || event.key === "Backspace") this.remove(i);
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    /** @param {number} i */
    remove(i) {
        this.scene.keys.splice(i, 1);
        this.leave();
        this.explorer.onKeyframesChanged();
        this.focusTile(Math.min(i, this.scene.keys.length - 1));
    }

    /** @param {number} from @param {number} to */
    reorder(from, to) {
        const { keys } = this.scene;
        if (to < 0 || to >= keys.length || to === from) return;
        keys.splice(to, 0, ...keys.splice(from, 1));
        this.explorer.onKeyframesChanged();
        this.focusTile(to);
    }

    /** @param {number} i */
    focusTile(i) {
        /** @type {HTMLElement | null | undefined} */ (this.strip.children[i]?.querySelector(".thumb"))?.focus();
    }

    /** Drag a tile to another position. @param {PointerEvent} event @param {HTMLElement} tile @param {number} from */
    drag(event, tile, from) {
        if (event.button > 0) return;
        const start = event.clientX, { strip } = this, thumb = /** @type {HTMLElement} */ (event.currentTarget);
        this.dragged = false;
        thumb.setPointerCapture(event.pointerId);
        const scale = tile.getBoundingClientRect().width / (tile.offsetWidth || 1);
        let to = from;
        const move = (/** @type {PointerEvent} */ next) => {
            const by = next.clientX - start;
            if (!this.dragged && Math.abs(by) < MIN_DRAG) return;
            this.dragged = true;
            tile.classList.add("dragged");
            tile.style.transform = `translateX(${by / scale}px)`;
            const tiles = [...strip.children], middles = tiles.map((one) => {
                const box = one.getBoundingClientRect();
                return (one === tile ? box.left - by : box.left) + box.width / 2;
            });
            to = middles.filter((middle, i) => i !== from && middle < next.clientX).length;
            tiles.forEach((one, i) => one.classList.toggle("gap", i === to && i !== from));
        };
        const end = () => {
            thumb.removeEventListener("pointermove", move);
            tile.classList.remove("dragged");
            tile.style.transform = "";
            if (this.dragged) this.reorder(from, to);
            for (const one of strip.children) one.classList.remove("gap");
            setTimeout(() => (this.dragged = false)); // after the click that ends the drag
        };
        thumb.addEventListener("pointermove", move);
        thumb.addEventListener("lostpointercapture", end, { once: true });
    }
}
