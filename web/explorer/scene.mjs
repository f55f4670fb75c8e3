// Scenes as plain objects, with the fields of `Scene` in creps_core/explorer/scene.py, and their films. Independent of the
// page.

import { DEFAULTS, EASINGS, LAYERS, LIMITS, MAX_KEYFRAMES, WALKS } from "./constants.mjs";

/** @typedef {{x: number, y: number, zoom: number, rotation: number}} View */
/**
 * @typedef {object} Walk
 * @property {typeof WALKS[number]} kind
 * @property {number} number
 * @property {[number, number]} seeds
 * @property {typeof LAYERS[number]} layers
 * @property {number} x
 * @property {number} y
 * @property {number} z
 */
/** @typedef {{seed: number, psi: number, label: number, walk: Walk, view: View}} Shot */
/** @typedef {Shot & {seconds: number}} Keyframe */
/**
 * @typedef {Shot & {width: number, height: number, keys: Keyframe[], fps: number, easing: typeof EASINGS[number],
 *   closed: boolean}} Scene
 */

/** @param {number} value @param {number} low @param {number} high */
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/**
 * @param {unknown} value
 * @param {number} fallback
 * @param {readonly [number, number]} limits
 */
const number = (value, fallback, limits) =>
    typeof value === "number" && Number.isFinite(value) ? clamp(value, ...limits) : fallback;

/** @param {unknown} value @param {number} fallback @param {readonly [number, number]} limits */
const integer = (value, fallback, limits) => Math.round(number(value, fallback, limits));

/**
 * @template {string} Name
 * @param {unknown} value
 * @param {readonly Name[]} names
 * @param {Name} fallback
 */
const oneOf = (value, names, fallback) => names.find((name) => name === value) ?? fallback;

/**
 * Read one shot; missing and invalid values get their default, numbers out of range the nearest limit.
 * @param {any} value
 * @returns {Shot}
 */
export function readShot(value) {
    const walk = value?.walk ?? {}, view = value?.view ?? {}, { walk: usual, view: home } = DEFAULTS;
    const seeds = Array.isArray(walk.seeds) ? walk.seeds : [];
    return {
        seed: integer(value?.seed, DEFAULTS.seed, LIMITS.seed),
        psi: number(value?.psi, DEFAULTS.psi, LIMITS.psi),
        label: integer(value?.label, DEFAULTS.label, LIMITS.label),
        walk: {
            kind: oneOf(walk.kind, WALKS, usual.kind),
            number: integer(walk.number, usual.number, LIMITS.number),
            seeds: [
                integer(seeds[0], usual.seeds[0], LIMITS.seed), integer(seeds[1], usual.seeds[1], LIMITS.seed),
            ],
            layers: oneOf(walk.layers, LAYERS, usual.layers),
            x: number(walk.x, usual.x, LIMITS.offset),
            y: number(walk.y, usual.y, LIMITS.offset),
            z: number(walk.z, usual.z, LIMITS.offset),
        },
        view: {
            x: number(view.x, home.x, LIMITS.center),
            y: number(view.y, home.y, LIMITS.center),
            zoom: number(view.zoom, home.zoom, LIMITS.zoom),
            rotation: number(view.rotation, home.rotation, LIMITS.rotation),
        },
    };
}

/**
 * Read a scene from an object or JSON text; see `readShot`.
 * @param {any} value
 * @returns {Scene}
 */
export function readScene(value) {
    if (typeof value === "string") {
        try {
            value = JSON.parse(value);
        } catch {
            value = {};
        }
    }
    const keys = Array.isArray(value?.keys) ? value.keys.slice(0, MAX_KEYFRAMES) : [];
    return {
        ...readShot(value),
        width: integer(value?.width, DEFAULTS.width, LIMITS.side),
        height: integer(value?.height, DEFAULTS.height, LIMITS.side),
        keys: keys.map((/** @type {any} */ key) => ({
            ...readShot(key), seconds: number(key?.seconds, DEFAULTS.seconds, LIMITS.seconds),
        })),
        fps: number(value?.fps, DEFAULTS.fps, LIMITS.fps),
        easing: oneOf(value?.easing, EASINGS, DEFAULTS.easing),
        closed: value?.closed === true,
    };
}

/**
 * A deep copy.
 * @template T
 * @param {T} value
 * @returns {T}
 */
export const copy = (value) => JSON.parse(JSON.stringify(value));

/** Equal for shots with the same latent. @param {Shot} shot */
export const latentKey = ({ seed, psi, label, walk }) => JSON.stringify([seed, psi, label, walk]);

/** Duration of the film in seconds; 0 without a film. @param {Pick<Scene, "keys" | "closed">} scene */
export function filmSeconds(scene) {
    if (scene.keys.length < 2) return 0;
    const legs = scene.closed ? scene.keys : scene.keys.slice(0, -1);
    return legs.reduce((sum, key) => sum + key.seconds, 0);
}

/**
 * Number of frames of the film; 1 without a film. The same formula as `Scene.film_frames` in Python.
 * @param {Pick<Scene, "keys" | "closed" | "fps">} scene
 */
export function filmFrames(scene) {
    if (scene.keys.length < 2) return 1;
    return Math.max(1, roundHalfEven(filmSeconds(scene) * scene.fps)) + (scene.closed ? 0 : 1);
}

/** Round as Python does: halves to the even neighbour. @param {number} value not negative */
function roundHalfEven(value) {
    const low = Math.floor(value), rest = value - low;
    return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}
