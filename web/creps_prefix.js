// %date:yyyy-MM-dd% and %Node.widget% in the names of our files: ComfyUI's page replaces them for its own savers only.

import { app } from "../../scripts/app.js";
import { widgetOf } from "./hooks.mjs";

const SAVERS = new Set(["CREPS_RenderToFile", "CREPS_SaveGenerator", "CREPS_SaveLatents", "CREPS_SaveDirections"]);

/** The page's own replacement; without it (another frontend) the text stays. @param {unknown} text */
function replaced(text) {
    const replace = window.comfyAPI?.utils?.applyTextReplacements;
    return typeof text === "string" && replace ? replace(app.rootGraph ?? app.graph, text) : text;
}

app.registerExtension({
    name: "creps.prefix",
    nodeCreated(/** @type {ComfyNode} */ node) {
        const widget = SAVERS.has(node.constructor.comfyClass ?? "") && widgetOf(node, "filename_prefix");
        if (widget) /** @type {any} */ (widget).serializeValue = () => replaced(widget.value);
    },
});
