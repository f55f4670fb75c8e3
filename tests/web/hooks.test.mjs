// Chained callbacks of nodes and widgets.

import assert from "node:assert/strict";
import { test } from "node:test";
import { after, widgetOf } from "../../web/hooks.mjs";

test("a listener runs after the callback, whose result stays", () => {
    const calls = [];
    const owner = {
        callback(value) {
            calls.push(["first", this === owner, value]);
            return value + 1;
        },
    };
    after(owner, "callback", (value) => calls.push(["second", value]));
    after(owner, "callback", function () {
        calls.push(["third", this === owner]);
    });
    assert.equal(owner.callback(4), 5);
    assert.deepEqual(calls, [["first", true, 4], ["second", 4], ["third", true]]);
});

test("there may be no callback yet", () => {
    const owner = {};
    let count = 0;
    after(owner, "onRemoved", () => count++);
    assert.equal(owner.onRemoved(), undefined);
    assert.equal(count, 1);
});

test("widgets are found by name", () => {
    const widget = { name: "choice" };
    assert.equal(widgetOf({ widgets: [{ name: "a" }, widget] }, "choice"), widget);
    assert.equal(widgetOf({}, "choice"), undefined);
    assert.equal(widgetOf(null, "choice"), undefined);
});
