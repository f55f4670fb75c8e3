// What the explorer shows, as a value: the same fields as `Scene` of creps_core/explorer/scene.py, and the geometry
// of views. Nothing in here knows the page.

export const LIMITS = {
    seed: 2 ** 53 - 1, side: 131072, zoom: [1e-3, 1e9], centre: 1000, keys: 64, psi: [-1, 1.5],
};
export const LAYERS = ["all", "coarse", "middle", "fine"];
export const EASINGS = ["ease in and out", "linear", "ease in", "ease out"];
export const REACH = { random: 3, SeFa: 4, PCA: 3, Named: 4, seeds: 1.25, linked: 4 };

export const HOME = Object.freeze({ x: 0.5, y: 0.5, zoom: 1, rotation: 0 });

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const number = (value, fallback, low, high) =>
    typeof value === "number" && Number.isFinite(value) ? clamp(value, low, high) : fallback;
const whole = (value, fallback, low, high) => Math.round(number(value, fallback, low, high));
const one = (value, names, fallback) => (names.includes(value) ? value : fallback);

/** One picture: seed, truncation, class, walk, view. Values that are missing or wrong get their default. */
export function readLook(value = {}) {
    const walk = value?.walk ?? {}, view = value?.view ?? {};
    const seeds = Array.isArray(walk.seeds) ? walk.seeds : [];
    return {
        seed: whole(value?.seed, 0, 0, LIMITS.seed),
        psi: number(value?.psi, 1, -2, 2),
        label: whole(value?.label, -1, -1, 65535),
        walk: {
            kind: one(walk.kind, Object.keys(REACH), "random"),
            number: whole(walk.number, 0, 0, 2 ** 31),
            seeds: [whole(seeds[0], 1, 0, LIMITS.seed), whole(seeds[1], 2, 0, LIMITS.seed)],
            layers: one(walk.layers, LAYERS, "all"),
            x: number(walk.x, 0, -20, 20),
            y: number(walk.y, 0, -20, 20),
            z: number(walk.z, 0, -20, 20),
        },
        view: {
            x: number(view.x, 0.5, -LIMITS.centre, LIMITS.centre),
            y: number(view.y, 0.5, -LIMITS.centre, LIMITS.centre),
            zoom: number(view.zoom, 1, ...LIMITS.zoom),
            rotation: number(view.rotation, 0, -36000, 36000),
        },
    };
}

/** A whole scene; as `readLook`. */
export function readScene(value = {}) {
    if (typeof value === "string") {
        try {
            value = JSON.parse(value);
        } catch {
            value = {};
        }
    }
    const keys = Array.isArray(value?.keys) ? value.keys.slice(0, LIMITS.keys) : [];
    return {
        ...readLook(value),
        width: whole(value?.width, 1024, 1, LIMITS.side),
        height: whole(value?.height, 1024, 1, LIMITS.side),
        keys: keys.map((key) => ({ ...readLook(key), seconds: number(key?.seconds, 2, 0.02, 600) })),
        fps: number(value?.fps, 24, 1, 120),
        easing: one(value?.easing, EASINGS, EASINGS[0]),
        closed: value?.closed === true,
    };
}

/** A copy that shares nothing. */
export const copy = (value) => JSON.parse(JSON.stringify(value));

/** What makes two pictures show the same latent. */
export const latentOf = ({ seed, psi, label, walk }) => JSON.stringify([seed, psi, label, walk]);

/** Seconds of the film. */
export function filmLength(scene) {
    if (scene.keys.length < 2) return 0;
    const legs = scene.closed ? scene.keys : scene.keys.slice(0, -1);
    return legs.reduce((sum, key) => sum + key.seconds, 0);
}

/** Frames of the film, as `frame_times` of the core counts them. */
export function filmFrames(scene) {
    const length = filmLength(scene);
    return length ? Math.max(1, Math.round(length * scene.fps)) + (scene.closed ? 0 : 1) : 0;
}

// Views. A stage has a `width` and a `height` in device pixels; in its middle lies the frame of the final picture, of the
// `sides` [across, down], the longer one of which is `frame`. `shape` is that of the generator's own frame, with 1 for its
// longer side, which takes `unit` pixels at zoom 1.

/** The stage of this size for a picture of width x height, inset by some pixels, of a generator of this aspect. */
export function stageOf(width, height, picture, inset, aspect = [1, 1]) {
    const room = [Math.max(width - 2 * inset, 1), Math.max(height - 2 * inset, 1)];
    const scale = Math.min(room[0] / picture.width, room[1] / picture.height);
    const frame = Math.max(1, Math.round(Math.max(picture.width, picture.height) * scale));
    const longer = Math.max(picture.width, picture.height);
    const sides = [picture.width, picture.height].map((side) => Math.max(1, Math.round((frame * side) / longer)));
    const shape = aspect.map((side) => side / Math.max(...aspect));
    const unit = Math.max(...sides.map((side, i) => Math.max(side - 1, 1) / shape[i]));
    return { width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height)), frame, sides, shape, unit };
}

/** Device pixels of the stage per longer side of the generator's frame. */
export const scaleOf = (view, stage) => view.zoom * stage.unit;

/** From an offset in stage pixels to one in the generator's frame, 0..1 across and down. */
export function toFrame(view, stage, dx, dy) {
    const k = scaleOf(view, stage), angle = (view.rotation * Math.PI) / 180;
    const cos = Math.cos(angle), sin = Math.sin(angle);
    return [(cos * dx + sin * dy) / k / stage.shape[0], (-sin * dx + cos * dy) / k / stage.shape[1]];
}

/** The view after the picture was dragged by so many stage pixels. */
export function panned(view, stage, dx, dy) {
    const [x, y] = toFrame(view, stage, dx, dy);
    return {
        ...view,
        x: clamp(view.x - x, -LIMITS.centre, LIMITS.centre),
        y: clamp(view.y - y, -LIMITS.centre, LIMITS.centre),
    };
}

/** The view zoomed by a factor about a point, given from the middle of the stage in its pixels. */
export function zoomed(view, stage, factor, dx, dy) {
    const zoom = clamp(view.zoom * factor, ...LIMITS.zoom);
    const [x, y] = toFrame(view, stage, dx, dy), kept = 1 - view.zoom / zoom;
    return {
        ...view,
        zoom,
        x: clamp(view.x + x * kept, -LIMITS.centre, LIMITS.centre),
        y: clamp(view.y + y * kept, -LIMITS.centre, LIMITS.centre),
    };
}

/** "x1", "x12.5", "x3 400": how close it is. */
export function zoomText(zoom) {
    const digits = zoom < 10 ? 2 : zoom < 100 ? 1 : 0;
    if (zoom >= 1e6) return `\u00d7${zoom.toExponential(1)}`;
    const text = zoom < 0.1 ? zoom.toPrecision(2) : zoom.toFixed(digits).replace(/\.?0+$/, (end) => (digits ? "" : end));
    return `\u00d7${text.replace(/\B(?=(\d{3})+$)/g, "\u2009")}`;
}
