// Sizes by name: a combo before width and height that fills them. It is no input: workflows and prompts hold the numbers,
// as they always did.

import { app } from "../../scripts/app.js";

const NODES = ["CREPS_Render", "CREPS_RenderToFile", "CREPS_RenderPath", "CREPS_RenderForUpscaling"];
const OWN = "by hand";
const SIZES = [
    ["square, small", 512, 512], ["square", 1024, 1024], ["square, large", 2048, 2048],
    ["wide 16:9", 1280, 720], ["full HD 16:9", 1920, 1080], ["4K 16:9", 3840, 2160], ["8K 16:9", 7680, 4320],
    ["phone 9:16", 1080, 1920], ["portrait 2:3", 1024, 1536], ["portrait 4:5", 1080, 1350],
    ["photo 3:2", 1536, 1024], ["classic 4:3", 1600, 1200],
    ["cinema 21:9", 2560, 1080], ["panorama 3:1", 3072, 1024], ["banner 4:1", 2048, 512],
    ["A4, 300 dpi", 2480, 3508], ["A4 across, 300 dpi", 3508, 2480], ["poster A2, 300 dpi", 4961, 7016],
].map(([name, width, height]) => ({ name: `${name}: ${width} x ${height}`, width, height }));

const find = (node, name) => node.widgets.find((widget) => widget.name === name);

function nameOf(node) {
    const [width, height] = ["width", "height"].map((name) => find(node, name)?.value);
    return SIZES.find((size) => size.width === width && size.height === height)?.name ?? OWN;
}

function addSizes(node) {
    const first = node.widgets?.findIndex((widget) => widget.name === "width") ?? -1;
    if (first < 0) return;
    const sides = ["width", "height"].map((name) => find(node, name));
    const fill = (name) => {
        const size = SIZES.find((one) => one.name === name);
        for (const side of size ? sides : []) {
            side.value = size[side.name];
            side.callback?.(side.value);
        }
        tell();
    };
    const combo = node.addWidget("combo", "preset", OWN, fill, {
        values: [OWN, ...SIZES.map((size) => size.name)], serialize: false,
    });
    combo.serialize = false;
    combo.tooltip = "Fills width and height.";
    // What it says follows the numbers, wherever they come from.
    const tell = () => (combo.value = nameOf(node));
    for (const side of sides) {
        const changed = side.callback;
        side.callback = function () {
            const result = changed?.apply(this, arguments);
            tell();
            return result;
        };
    }
    const configured = node.onConfigure;
    node.onConfigure = function () {
        const result = configured?.apply(this, arguments);
        tell();
        return result;
    };
    tell();
    node.widgets.splice(first, 0, node.widgets.splice(node.widgets.indexOf(combo), 1)[0]);
    // The page leaves a hole in the list of values for a widget that is not saved, and reads it back without one.
    const serialized = node.onSerialize;
    node.onSerialize = function (saved) {
        serialized?.apply(this, arguments);
        saved.widgets_values = saved.widgets_values?.filter((_, i) => this.widgets[i]?.serialize !== false);
    };
}

app.registerExtension({
    name: "creps.sizes",
    nodeCreated(node) {
        if (NODES.includes(node.constructor.comfyClass)) addSizes(node);
    },
});
