// Sizes by name: a combo before width and height that fills them. It is no input of the node: workflows and prompts
// contain the numbers.

import { app } from "../../scripts/app.js";
import { after, widgetOf } from "./hooks.mjs";

const NODES = ["CREPS_Render", "CREPS_RenderToFile", "CREPS_RenderPath", "CREPS_RenderForUpscaling"];
const OWN = "by hand";
/** @type {{name: string, width: number, height: number}[]} */
const SIZES = /** @type {[string, number, number][]} */ ([
    ["square, small", 512, 512], ["square", 1024, 1024], ["square, large", 2048, 2048],
    ["wide 16:9", 1280, 720], ["full HD 16:9", 1920, 1080], ["4K 16:9", 3840, 2160], ["8K 16:9", 7680, 4320],
    ["phone 9:16", 1080, 1920], ["portrait 2:3", 1024, 1536], ["portrait 4:5", 1080, 1350],
    ["photo 3:2", 1536, 1024], ["classic 4:3", 1600, 1200],
    ["cinema 21:9", 2560, 1080], ["panorama 3:1", 3072, 1024], ["banner 4:1", 2048, 512],
    ["A4, 300 dpi", 2480, 3508], ["A4 across, 300 dpi", 3508, 2480], ["poster A2, 300 dpi", 4961, 7016],
]).map(([name, width, height]) => ({ name: `${name}: ${width} x ${height}`, width, height }));

/** @param {ComfyNode} node */
function presetOf(node) {
    const [width, height] = ["width", "height"].map((name) => widgetOf(node, name)?.value);
    return SIZES.find((size) => size.width === width && size.height === height)?.name ?? OWN;
}

/** @param {ComfyNode} node */
function addSizes(node) {
    const width = widgetOf(node, "width"), height = widgetOf(node, "height");
    if (!node.widgets || !width || !height) return;
    const set = (/** @type {typeof width} */ side, /** @type {unknown} */ value) => {
        side.value = /** @type {number} */ (value);
        side.callback?.(side.value);
    };
    const fill = (/** @type {unknown} */ name) => {
        const size = SIZES.find((one) => one.name === name);
        if (size) {
            set(width, size.width);
            set(height, size.height);
        }
        showPreset();
    };
    const combo = node.addWidget("combo", "preset", OWN, fill, {
        values: [OWN, ...SIZES.map((size) => size.name)], serialize: false,
    });
    combo.serialize = false;
    combo.tooltip = "Fills width and height.";
    const showPreset = () => (combo.value = presetOf(node)); // follows the numbers, whatever sets them
    for (const side of [width, height]) after(side, "callback", showPreset);
    after(node, "onConfigure", showPreset);
    showPreset();
    const { widgets } = node;
    widgets.splice(widgets.indexOf(width), 0, ...widgets.splice(widgets.findIndex(({ name }) => name === combo.name), 1));
    // The frontend leaves a hole in the list of values for a widget that is not saved, and reads it back without one.
    after(node, "onSerialize", (saved) => {
        saved.widgets_values = saved.widgets_values?.filter(
            (/** @type {unknown} */ _, /** @type {number} */ i) => node.widgets?.[i]?.serialize !== false);
    });
}

app.registerExtension({
    name: "creps.sizes",
    nodeCreated(/** @type {ComfyNode} */ node) {
        if (NODES.includes(node.constructor.comfyClass ?? "")) addSizes(node);
    },
});
