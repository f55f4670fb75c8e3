// Scenes as values, and the number of frames of a film.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { DEFAULTS, LIMITS, MAX_KEYFRAMES, WALKS } from "../../web/explorer/constants.mjs";
import { copy, filmFrames, filmSeconds, latentKey, readScene, readShot } from "../../web/explorer/scene.mjs";

const { cases } = JSON.parse(readFileSync(new URL("film_cases.json", import.meta.url), "utf8"));

test("films have the number of frames that the node renders", () => {
    for (const [seconds, fps, closed, frames] of cases) {
        const scene = readScene({ keys: seconds.map((value) => ({ seconds: value })), fps, closed });
        assert.equal(filmFrames(scene), frames, JSON.stringify([seconds, fps, closed]));
    }
});

test("an open film ends at its last keyframe", () => {
    const keys = [{ seconds: 1.5 }, { seconds: 0.5 }, { seconds: 600 }];
    assert.equal(filmSeconds(readScene({ keys })), 2);
    assert.equal(filmSeconds(readScene({ keys, closed: true })), 602);
    assert.equal(filmSeconds(readScene({ keys: keys.slice(0, 1), closed: true })), 0);
});

test("missing and wrong values get their default", () => {
    const wrong = { seed: "7", psi: NaN, walk: { kind: "x", layers: 3 }, easing: "bounce", closed: 1, view: null };
    const wanted = { ...copy(DEFAULTS), keys: [] };
    delete wanted.seconds;
    for (const value of [undefined, null, 3, {}, "", "{", { walk: null, view: [], keys: 3 }, wrong]) {
        assert.deepEqual(readScene(value), wanted);
    }
});

test("numbers out of range get the nearest limit", () => {
    const shot = readShot({ seed: -1, psi: 1e9, view: { zoom: 0, x: 1e9 }, walk: { x: -99, seeds: [2 ** 60, 1.4] } });
    assert.equal(shot.seed, 0);
    assert.equal(shot.psi, LIMITS.psi[1]);
    assert.equal(shot.view.zoom, LIMITS.zoom[0]);
    assert.equal(shot.view.x, LIMITS.center[1]);
    assert.equal(shot.walk.x, LIMITS.offset[0]);
    assert.deepEqual(shot.walk.seeds, [LIMITS.seed[1], 1]);
    assert.equal(readScene({ keys: Array(100).fill({}) }).keys.length, MAX_KEYFRAMES);
});

test("a scene survives JSON, as an object and as text", () => {
    const scene = readScene({
        seed: 7, psi: 0.6, walk: { kind: "seeds", seeds: [8, 9], layers: "fine", x: 0.5, y: -1.25 },
        view: { x: -3.5, zoom: 1000, rotation: 90 }, width: 1920, keys: [{ seed: 1 }, { seconds: 0.5 }],
        easing: "linear", closed: true,
    });
    assert.deepEqual(readScene(copy(scene)), scene);
    assert.deepEqual(readScene(JSON.stringify(scene)), scene);
});

test("the view is no part of the latent's key, the walk is", () => {
    const shot = readShot({ seed: 3 });
    assert.equal(latentKey(shot), latentKey({ ...shot, view: { ...shot.view, zoom: 4 } }));
    for (const kind of WALKS.slice(1)) {
        assert.notEqual(latentKey(shot), latentKey({ ...shot, walk: { ...shot.walk, kind } }));
    }
});
