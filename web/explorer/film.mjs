// The filmstrip: key frames to be looked at, reordered, timed, removed, and the film through them.

import { copy, EASINGS, filmFrames, filmLength, LIMITS, readLook } from "./scene.mjs";
import { button, el, numberField, select, show } from "./dom.mjs";

const THUMB = 160; // pixels
const FEW_PIXELS = 5; // of a drag, before it reorders

export class Film {
    /**
     * @param {object} owner: `scene`, and the functions keysChanged(), look(key), playing(time or null).
     */
    constructor(owner) {
        this.owner = owner;
        this.time = null; // of the film, while it is looked at
        this.plays = false;
        this.pictures = new WeakMap(); // key -> canvas
        this.strip = el("ol", { class: "keys", "aria-label": "Key frames" });
        this.play = button("play", "Play", () => this.toggle(), "space");
        this.loop = button("loop", "Lead back to the first key: a loop", () => {
            owner.scene.closed = !owner.scene.closed;
            owner.keysChanged();
        }, "", { "aria-pressed": "false" });
        this.place = el("input", {
            type: "range", class: "time", min: 0, step: "any", "aria-label": "Time in the film",
            oninput: () => this.seek(this.place.valueAsNumber),
        });
        this.total = el("output", { class: "total" });
        this.fps = numberField("Frames per second of the film", {
            min: 1, max: 120, class: "narrow",
            onchange: (value) => {
                owner.scene.fps = value;
                owner.keysChanged();
            },
        });
        this.easing = select("How a key is reached", EASINGS.map((name) => [name, name]), (value) => {
            owner.scene.easing = value;
            owner.keysChanged();
        });
        this.element = el("section", { class: "film", "aria-label": "Film" },
            el("div", { class: "film-row" }, this.play, this.place, this.total, this.loop,
                el("label", { class: "unit" }, this.fps, "fps"), this.easing),
            this.strip);
    }

    /** Keep what is shown as a key frame; `thumbnail` may come later. */
    keep(thumbnail) {
        const { scene } = this.owner;
        if (scene.keys.length >= LIMITS.keys) return false;
        const key = { ...copy(readLook(scene)), seconds: 2 };
        scene.keys.push(key);
        if (thumbnail) this.pictures.set(key, thumbnail);
        this.owner.keysChanged();
        this.strip.lastElementChild?.scrollIntoView({ block: "nearest", inline: "nearest" });
        return true;
    }

    /** The first key without a picture, if there is one. */
    get blank() {
        return this.owner.scene.keys.find((key) => !this.pictures.has(key));
    }

    /** Give a key its picture. */
    picture(key, bitmap) {
        const scale = THUMB / Math.max(bitmap.width, bitmap.height);
        const canvas = el("canvas", {
            width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)),
        });
        canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
        this.pictures.set(key, canvas);
        this.show();
    }

    // Playing

    toggle() {
        if (this.plays) this.pause();
        else if (filmLength(this.owner.scene)) this.run();
    }

    run() {
        const length = filmLength(this.owner.scene);
        if (this.time === null || this.time >= length) this.time = 0;
        this.plays = true;
        let last = performance.now();
        const step = (now) => {
            if (!this.plays) return;
            const total = filmLength(this.owner.scene);
            this.time += Math.min(now - last, 250) / 1000;
            last = now;
            if (this.owner.scene.closed) this.time %= total;
            else if (this.time >= total) [this.time, this.plays] = [total, false];
            this.owner.playing(this.time);
            this.showTime();
            if (this.plays) requestAnimationFrame(step);
        };
        requestAnimationFrame(step);
        this.showTime();
    }

    pause() {
        this.plays = false;
        this.showTime();
    }

    seek(time) {
        this.plays = false;
        this.time = time;
        this.owner.playing(time);
        this.showTime();
    }

    /** Back to the look that is not of the film. */
    leave() {
        if (this.time === null && !this.plays) return;
        [this.time, this.plays] = [null, false];
        this.showTime();
    }

    // What it looks like

    show() {
        const { scene } = this.owner;
        this.element.hidden = scene.keys.length === 0;
        this.loop.setAttribute("aria-pressed", String(scene.closed));
        show(this.fps, scene.fps);
        show(this.easing, scene.easing);
        this.strip.replaceChildren(...scene.keys.map((key, i) => this.tile(key, i)));
        this.showTime();
    }

    showTime() {
        const { scene } = this.owner, length = filmLength(scene);
        this.place.max = length || 1;
        this.place.disabled = this.play.disabled = !length;
        this.place.value = this.time ?? 0;
        const name = this.plays ? "pause" : "play";
        if (this.shown !== name) {
            const fresh = button(name, this.plays ? "Pause" : "Play", () => this.toggle(), "space");
            fresh.disabled = this.play.disabled;
            const focused = this.play.getRootNode().activeElement === this.play;
            this.play.replaceWith(fresh);
            [this.play, this.shown] = [fresh, name];
            if (focused) fresh.focus();
        }
        const parts = [`${(this.time ?? 0).toFixed(1)} / ${length.toFixed(1)} s`];
        if (length) parts.push(`${filmFrames(scene)} frames`);
        this.total.textContent = length ? parts.join(", ") : "one more key makes a film: K";
    }

    tile(key, i) {
        const { scene } = this.owner, last = i === scene.keys.length - 1 && !scene.closed;
        const open = el("button", {
            type: "button", class: "thumb", title: "Show; drag to reorder, or arrow keys",
            "aria-label": `Key ${i + 1}: seed ${key.seed}. Arrow keys reorder, Delete removes`,
            onclick: () => this.dragged || this.owner.look(key),
            onkeydown: (event) => this.keydown(event, i),
        }, this.pictures.get(key) ?? "");
        const seconds = numberField("Seconds to the next key", {
            min: 0.1, max: 600, step: 0.5, class: "seconds", value: key.seconds,
            onchange: (value) => {
                key.seconds = value;
                this.owner.keysChanged();
            },
        });
        const tile = el("li", { class: "tile" }, open,
            button("remove", `Remove key ${i + 1}`, () => this.remove(i), "", { class: "icon remove" }),
            last ? el("span", { class: "unit end" }, "end") : el("label", { class: "unit" }, seconds, "s"));
        open.addEventListener("pointerdown", (event) => this.drag(event, tile, i));
        return tile;
    }

    keydown(event, i) {
        const to = { ArrowLeft: i - 1, ArrowRight: i + 1 }[event.key];
        if (to !== undefined) this.reorder(i, to);
        else if (event.key === "Delete" || event.key === "Backspace") this.remove(i);
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    remove(i) {
        this.owner.scene.keys.splice(i, 1);
        this.leave();
        this.owner.keysChanged();
        (this.strip.children[Math.min(i, this.strip.children.length - 1)]?.querySelector(".thumb"))?.focus();
    }

    reorder(from, to) {
        const { keys } = this.owner.scene;
        if (to < 0 || to >= keys.length || to === from) return;
        keys.splice(to, 0, ...keys.splice(from, 1));
        this.owner.keysChanged();
        this.strip.children[to].querySelector(".thumb").focus();
    }

    /** Drag a tile to another place in the row. */
    drag(event, tile, from) {
        if (event.button > 0) return;
        const start = event.clientX, { strip } = this, thumb = event.currentTarget;
        this.dragged = false;
        thumb.setPointerCapture(event.pointerId);
        const scale = tile.getBoundingClientRect().width / (tile.offsetWidth || 1);
        let to = from;
        const move = (next) => {
            const by = next.clientX - start;
            if (!this.dragged && Math.abs(by) < FEW_PIXELS) return;
            this.dragged = true;
            tile.classList.add("dragged");
            tile.style.transform = `translateX(${by / scale}px)`;
            const tiles = [...strip.children], middles = tiles.map((one) => {
                const box = one.getBoundingClientRect();
                return (one === tile ? box.left - by : box.left) + box.width / 2;
            });
            to = middles.filter((middle, i) => i !== from && middle < next.clientX).length;
            tiles.forEach((one, i) => one.classList.toggle("gap", i !== from && i === (to < from ? to : to + 0) && to !== from));
        };
        const end = () => {
            thumb.removeEventListener("pointermove", move);
            tile.classList.remove("dragged");
            tile.style.transform = "";
            if (this.dragged) this.reorder(from, to);
            for (const one of strip.children) one.classList.remove("gap");
            setTimeout(() => (this.dragged = false));
        };
        thumb.addEventListener("pointermove", move);
        thumb.addEventListener("lostpointercapture", end, { once: true });
    }
}
