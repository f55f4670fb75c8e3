// Geometry of views.

import assert from "node:assert/strict";
import { test } from "node:test";
import { LIMITS } from "../../web/explorer/constants.mjs";
import { flownTo, HOME, layoutOf, panned, scaleOf, smooth, toFrame, zoomed, zoomText } from "../../web/explorer/view.mjs";

const near = (a, b, message) => assert.ok(Math.abs(a - b) < 1e-9, `${message ?? ""} ${a} is not ${b}`);
const layout = layoutOf(800, 600, { width: 1920, height: 1080 }, 10);
const view = { x: 0.4, y: 0.7, zoom: 8, rotation: 30 };

test("the frame has the shape of the image and fits between the insets", () => {
    assert.deepEqual(layout.sides, [780, 439]);
    assert.equal(layout.frame, 780);
    assert.deepEqual(layoutOf(300, 900, { width: 100, height: 100 }, 0).sides, [300, 300]);
    assert.deepEqual(layoutOf(1, 1, { width: 131072, height: 1 }, 40).sides, [1, 1]);
});

test("at zoom 1 the image covers the generator's frame, of whatever aspect", () => {
    near(layout.unit, 779);
    const wide = layoutOf(800, 600, { width: 1600, height: 900 }, 0, [16, 9]);
    assert.deepEqual(wide.shape, [1, 0.5625]);
    assert.deepEqual(wide.sides, [800, 450]);
    near(wide.unit, 799);
});

test("dragging moves the point under the pointer by that much", () => {
    const moved = panned(view, layout, 30, -12);
    const [before, after] = [toFrame(view, layout, 100, 50), toFrame(moved, layout, 130, 38)];
    near(view.x + before[0], moved.x + after[0]);
    near(view.y + before[1], moved.y + after[1]);
});

test("the point under the pointer stays when zooming", () => {
    const closer = zoomed(view, layout, 3, 120, -80);
    near(closer.zoom, 24);
    const [before, after] = [toFrame(view, layout, 120, -80), toFrame(closer, layout, 120, -80)];
    near(view.x + before[0], closer.x + after[0]);
    near(view.y + before[1], closer.y + after[1]);
    near(scaleOf(closer, layout), 3 * scaleOf(view, layout));
});

test("views stay within their limits", () => {
    assert.equal(zoomed(view, layout, 1e30, 0, 0).zoom, LIMITS.zoom[1]);
    assert.equal(zoomed(view, layout, 1e-30, 0, 0).zoom, LIMITS.zoom[0]);
    assert.equal(panned({ ...HOME, zoom: 1e-3 }, layout, -1e9, 0).x, LIMITS.center[1]);
});

test("a flight begins and ends where it should, and one point stays in place", () => {
    const goal = { x: 0.1, y: 0.2, zoom: 100, rotation: 90 };
    assert.deepEqual(flownTo(view, goal, 0), view);
    assert.deepEqual(flownTo(view, goal, 1), goal);
    const fixed = (view.x * view.zoom - goal.x * goal.zoom) / (view.zoom - goal.zoom);
    for (const t of [0.25, 0.5, 0.9]) {
        const now = flownTo(view, goal, t);
        near(Math.log(now.zoom), Math.log(8) + t * Math.log(100 / 8));
        near((fixed - now.x) * now.zoom, (fixed - view.x) * view.zoom, "its distance on screen");
        assert.equal(now.rotation, 30);
    }
    near(flownTo(view, { ...view, x: 0.8 }, 0.5).x, 0.6, "without zoom");
});

test("smooth is slow at both ends", () => {
    assert.deepEqual([0, 0.5, 1].map(smooth), [0, 0.5, 1]);
    assert.ok(smooth(0.01) < 0.001);
});

test("zoom as text", () => {
    const texts = { 1: "\u00d71", 12.5: "\u00d712.5", 0.05: "\u00d70.050", 3400: "\u00d73\u2009400", 2e7: "\u00d72.0e+7" };
    for (const [zoom, text] of Object.entries(texts)) assert.equal(zoomText(Number(zoom)), text);
    assert.equal(zoomText(100), "\u00d7100");
});
