// Asking for pictures: drafts while something moves, every pixel at rest, and then what the keys still lack.

import { latentOf, readLook } from "./scene.mjs";

const REST_MS = 60; // without a change, until the sharp picture is asked for
const PATIENCE_MS = 420; // that it may take; else one that is nearly as sharp comes first
const RETRIES = 3, RETRY_MS = 1000; // after an error, ever later
const THUMB = 160; // pixels of a key's picture
const KEPT = 240; // questions that may still be answered

export class FrameRequester {
    /**
     * @param {object} owner: `scene`, `source`, `problem`, `stage`, `film`, `link`, and the function showed(header, asked,
     *   bytes) for every picture that is on screen.
     */
    constructor(owner) {
        this.owner = owner;
        this.sent = new Map(); // id -> what was asked for
        this.number = 0;
        this.shown = { id: 0, view: null };
        this.pace = 0; // ms per pixel of the last sharp picture
        this.draft = false; // whether one is to be asked for
        this.failures = 0; // since the last picture, or something moved
        this.sharp = ""; // what was asked for since something moved: "", "nearly", "whole"
    }

    get settled() {
        return !this.draft && !this.owner.stage.busy && this.sharp === "whole" && this.shown.id === this.whole;
    }

    /** What is on screen is not what is wanted any more. `time` is that of the event, if there was one. */
    want(time) {
        this.eventTime = time ?? this.eventTime;
        this.lastTime = time ?? this.lastTime;
        this.draft = true;
        this.sharp = "";
        this.failures = 0;
        clearTimeout(this.resting);
        if (!this.asking) this.asking = requestAnimationFrame(() => this.ask());
    }

    ask() {
        const { link, problem, source, stage, film } = this.owner;
        this.asking = 0;
        if (!link?.ready || document.hidden || problem || !source || stage.size[0] < 2) return;
        if (this.draft) {
            this.draft = false;
            this.request({});
        }
        clearTimeout(this.resting);
        if (!film.plays) this.resting = setTimeout(() => this.rest(), REST_MS);
    }

    /** Nothing moves: ask for the sharp picture, and then for pictures that keys still lack. */
    rest() {
        const { stage, film, scene } = this.owner;
        if (stage.motion) {
            this.resting = setTimeout(() => this.rest(), REST_MS);
            return;
        }
        const { width, height } = stage.stage, expected = this.pace * width * height;
        if (!this.sharp && expected > 1.4 * PATIENCE_MS) {
            this.sharp = "nearly";
            this.request({ sharp: true, side: Math.round(Math.max(width, height) * Math.sqrt(PATIENCE_MS / expected)) });
        } else if (this.sharp !== "whole") {
            this.sharp = "whole";
            this.whole = this.request({ sharp: true });
        } else if (film.blank) {
            const key = film.blank, { width: w, height: h } = scene, scale = THUMB / Math.max(w, h);
            const size = [w, h].map((side) => Math.max(1, Math.round(side * scale)));
            this.request({ sharp: true, stage: { width: size[0], height: size[1], frame: Math.max(...size) }, key });
        }
    }

    request({ sharp = false, side = 0, stage = this.owner.stage.stage, key = null }) {
        const { film, scene, source, link } = this.owner, id = ++this.number, time = key ? null : film.time;
        const { keys, ...rest } = scene;
        const show = { ...rest, ...(key ? readLook(key) : {}), keys: time === null ? [] : keys };
        this.sent.set(id, {
            key, stage, latent: time === null ? latentOf(show) : `film ${time}`, event: sharp ? undefined : this.eventTime,
            moved: this.lastTime, sharp, at: performance.now(),
        });
        if (!sharp) this.eventTime = undefined;
        for (const old of this.sent.keys()) if (old < id - KEPT) this.sent.delete(old);
        link.send({ show, id, source, stage: [stage.width, stage.height, stage.frame], sharp, side, time });
        return id;
    }

    async arrived(header, blob) {
        const { film, link, stage } = this.owner;
        const asked = this.sent.get(header.id);
        const bitmap = asked && await createImageBitmap(blob).catch(() => null);
        link.seen(header.id);
        if (!bitmap || this.closed) return;
        if (asked.key) {
            film.picture(asked.key, bitmap);
            bitmap.close();
            this.resting = setTimeout(() => this.rest(), 0);
            return;
        }
        if (header.id < this.shown.id) {
            bitmap.close();
            return;
        }
        this.failures = 0;
        this.shown = { id: header.id, view: header.view };
        // Of a draft a good part of the time does not depend on its size: a sharp picture tells more.
        if (header.sharp || !this.pace) this.pace = header.draw / (header.width * header.height);
        stage.take({ bitmap, view: header.view, stage: asked.stage, latent: asked.latent, sharp: header.sharp });
        this.owner.showed(header, asked, blob.size);
        if (asked.sharp && !this.draft) this.resting = setTimeout(() => this.rest(), 0);
    }

    /** There is no picture: ask again, in case that the reason passes. */
    failed() {
        if (this.failures++ >= RETRIES) return;
        clearTimeout(this.resting);
        this.resting = setTimeout(() => {
            [this.draft, this.sharp] = [true, ""];
            this.ask();
        }, RETRY_MS * this.failures);
    }

    /** Forget what was asked: it was about another generator. */
    forget() {
        this.sent.clear();
    }

    close() {
        this.closed = true;
        clearTimeout(this.resting);
        cancelAnimationFrame(this.asking);
    }
}
