// Request frames: drafts while something moves, all pixels at rest, then the thumbnails that keyframes lack.

import { latentKey, readShot } from "./scene.mjs";

/** @import {Explorer} from "./explorer.mjs" */
/** @import {FrameHeader} from "./connection.mjs" */
/** @import {Keyframe, View} from "./scene.mjs" */
/** @import {Layout} from "./view.mjs" */
/**
 * A request that was sent.
 * @typedef {object} Request
 * @property {Keyframe | null} key whose thumbnail it is
 * @property {RequestedLayout} layout
 * @property {string} latent equal for the same latent
 * @property {number | undefined} event time of the event that a draft answers
 * @property {number | undefined} moved time of the last event
 * @property {boolean} sharp
 * @property {number} at when it was sent
 */
/** @typedef {Pick<Layout, "width" | "height" | "frame"> & Partial<Layout>} RequestedLayout */

const REST_MS = 60; // without a change, until the sharp frame is requested
const MAX_SHARP_MS = 420; // if all pixels take longer, a smaller sharp frame comes first
const RETRIES = 3, RETRY_MS = 1000; // after an error, with growing pauses
const THUMBNAIL = 160; // pixels of a keyframe's thumbnail
const MAX_PENDING = 240; // requests that may still be answered

export class FrameRequester {
    /** @param {Explorer} explorer */
    constructor(explorer) {
        this.explorer = explorer;
        /** @type {Map<number, Request>} */
        this.pending = new Map();
        this.number = 0;
        /** @type {{id: number, view: View | null}} the frame on screen */
        this.shown = { id: 0, view: null };
        this.msPerPixel = 0; // of the last sharp frame
        this.needsDraft = false;
        this.failures = 0; // since the last frame or change
        /** @type {"" | "reduced" | "full"} size of the sharp frame that was requested since the last change */
        this.sharp = "";
        this.fullId = 0; // of the last request with all pixels
        /** @type {number | undefined} time of the first event without a draft */
        this.eventTime = undefined;
        /** @type {number | undefined} time of the last event */
        this.lastTime = undefined;
        /** @type {ReturnType<typeof setTimeout> | undefined} */
        this.restTimer = undefined;
        this.animationFrame = 0;
        this.closed = false;
    }

    /** Whether the frame on screen is current, with all pixels. */
    get settled() {
        return !this.needsDraft && !this.explorer.viewport.busy && this.sharp === "full" && this.shown.id === this.fullId;
    }

    /** The frame on screen is out of date. @param {number} [time] of the event, if there was one */
    invalidate(time) {
        this.eventTime = time ?? this.eventTime;
        this.lastTime = time ?? this.lastTime;
        this.needsDraft = true;
        this.sharp = "";
        this.failures = 0;
        clearTimeout(this.restTimer);
        if (!this.animationFrame) this.animationFrame = requestAnimationFrame(() => this.requestDraft());
    }

    requestDraft() {
        const { connection, problem, source, viewport, film } = this.explorer;
        this.animationFrame = 0;
        if (!connection.ready || document.hidden || problem || !source || viewport.size[0] < 2) return;
        if (this.needsDraft) {
            this.needsDraft = false;
            this.request({});
        }
        clearTimeout(this.restTimer);
        if (!film.playing) this.requestSharpAfter(REST_MS);
    }

    /** @param {number} ms */
    requestSharpAfter(ms) {
        this.restTimer = setTimeout(() => this.requestSharp(), ms);
    }

    /** Nothing moves: request the sharp frame, then missing thumbnails. The end of a motion invalidates anyway. */
    requestSharp() {
        const { viewport, film, scene } = this.explorer;
        if (viewport.motion) return;
        const { width, height } = viewport.layout, expected = this.msPerPixel * width * height;
        if (!this.sharp && expected > 1.4 * MAX_SHARP_MS) {
            this.sharp = "reduced";
            const side = Math.round(Math.max(width, height) * Math.sqrt(MAX_SHARP_MS / expected));
            this.request({ sharp: true, side });
        } else if (this.sharp !== "full") {
            this.sharp = "full";
            this.fullId = this.request({ sharp: true });
        } else if (film.withoutThumbnail) {
            const key = film.withoutThumbnail, scale = THUMBNAIL / Math.max(scene.width, scene.height);
            const sideOf = (/** @type {number} */ side) => Math.max(1, Math.round(side * scale));
            const [across, down] = [sideOf(scene.width), sideOf(scene.height)];
            this.request({ sharp: true, layout: { width: across, height: down, frame: Math.max(across, down) }, key });
        }
    }

    /** @param {{sharp?: boolean, side?: number, layout?: RequestedLayout, key?: Keyframe | null}} options */
    request({ sharp = false, side = 0, layout = this.explorer.viewport.layout, key = null }) {
        const { film, scene, source, connection } = this.explorer, id = ++this.number, time = key ? null : film.time;
        const { keys, ...rest } = scene;
        const show = { ...rest, ...(key ? readShot(key) : {}), keys: time === null ? [] : keys };
        this.pending.set(id, {
            key, layout, latent: time === null ? latentKey(show) : `film ${time}`,
            event: sharp ? undefined : this.eventTime, moved: this.lastTime, sharp, at: performance.now(),
        });
        if (!sharp) this.eventTime = undefined;
        for (const old of this.pending.keys()) if (old < id - MAX_PENDING) this.pending.delete(old);
        connection.send({ show, id, source, stage: [layout.width, layout.height, layout.frame], sharp, side, time });
        return id;
    }

    /** A frame has arrived. @param {FrameHeader} header @param {Blob} jpeg */
    async receive(header, jpeg) {
        const { film, connection, viewport } = this.explorer;
        const request = this.pending.get(header.id);
        const bitmap = request && await createImageBitmap(jpeg).catch(() => null);
        connection.acknowledge(header.id);
        if (!bitmap) return;
        if (this.closed || (!request.key && header.id < this.shown.id)) {
            bitmap.close();
            return;
        }
        if (request.key) {
            film.setThumbnail(request.key, bitmap);
            bitmap.close();
            this.requestSharpAfter(0);
            return;
        }
        this.failures = 0;
        this.shown = { id: header.id, view: header.view };
        // Much of the time of a draft does not depend on its size: a sharp frame tells more.
        if (header.sharp || !this.msPerPixel) this.msPerPixel = header.draw / (header.width * header.height);
        viewport.addImage({
            bitmap, view: header.view, layout: /** @type {Layout} */ (request.layout), latent: request.latent,
        });
        this.explorer.onFrame(header, request, jpeg.size);
        if (request.sharp && !this.needsDraft) this.requestSharpAfter(0);
    }

    /** The server could not draw: retry, in case the reason passes. */
    retry() {
        if (this.failures++ >= RETRIES) return;
        clearTimeout(this.restTimer);
        this.restTimer = setTimeout(() => {
            [this.needsDraft, this.sharp] = [true, ""];
            this.requestDraft();
        }, RETRY_MS * this.failures);
    }

    /** Discard pending requests: they are for another generator. */
    discard() {
        this.pending.clear();
    }

    close() {
        this.closed = true;
        clearTimeout(this.restTimer);
        cancelAnimationFrame(this.animationFrame);
    }
}
