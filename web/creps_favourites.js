// The thumbnail of the favourite that Load CREPS Favourite is set to.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { after, widgetOf } from "./hooks.mjs";

const FOLDER = "creps_latents/favourites"; // in the output folder, see nodes/favourites.py
const HEIGHT = 160;

/** @param {ComfyNode} node */
function addThumbnail(node) {
    const name = widgetOf(node, "name");
    if (!name) return;
    const element = document.createElement("div"), image = new Image();
    element.className = "creps-favourite";
    element.style.cssText = "position: relative; width: 100%; height: 100%; display: grid; place-items: center; "
        + "overflow: hidden; border-radius: 6px; background: #111215; color: #9498a2; font: 12px sans-serif";
    image.style.cssText = "position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain";
    image.onerror = () => (element.textContent = "no thumbnail");
    image.onload = () => element.replaceChildren(image);
    const widget = node.addDOMWidget("thumbnail", "CREPS_THUMBNAIL", element, {
        serialize: false, getMinHeight: () => HEIGHT, hideOnZoom: false,
    });
    widget.serialize = false;

    /** @type {unknown} */
    let current;
    const show = () => {
        if (name.value === current) return;
        current = name.value;
        if (!current) element.textContent = "no favourites yet: Save CREPS Favourite";
        const query = { filename: `${current}.png`, subfolder: FOLDER, type: "output", rand: String(Math.random()) };
        if (current) image.src = api.apiURL(`/view?${new URLSearchParams(query)}`);
    };
    show();
    after(name, "callback", () => queueMicrotask(show));
    after(node, "onConfigure", show); // a workflow that is loaded calls no widget's callback
    api.addEventListener("graphChanged", show);
    after(node, "onRemoved", () => api.removeEventListener("graphChanged", show));
}

app.registerExtension({
    name: "creps.favourites",
    nodeCreated(/** @type {ComfyNode} */ node) {
        if (node.constructor.comfyClass === "CREPS_LoadFavourite") addThumbnail(node);
    },
});
