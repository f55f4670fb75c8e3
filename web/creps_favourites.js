// The thumbnail of the favourite that Load CREPS Favourite is set to.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const FOLDER = "creps_latents/favourites"; // in the output folder, see nodes/favourites.py
const HEIGHT = 160;
const LOOK_MS = 500; // a workflow that is read sets values without telling

function addThumbnail(node) {
    const name = node.widgets?.find((widget) => widget.name === "name");
    if (!name) return;
    const element = document.createElement("div"), picture = new Image();
    element.className = "creps-favourite";
    element.style.cssText = "position: relative; width: 100%; height: 100%; display: grid; place-items: center; overflow: hidden; "
        + "border-radius: 6px; background: #111215; color: #9498a2; font: 12px sans-serif";
    picture.style.cssText = "position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain";
    picture.onerror = () => (element.textContent = "no thumbnail");
    picture.onload = () => element.replaceChildren(picture);
    const widget = node.addDOMWidget("thumbnail", "CREPS_THUMBNAIL", element, {
        serialize: false, getMinHeight: () => HEIGHT, hideOnZoom: false,
    });
    widget.serialize = false;
    let shown;
    const look = () => {
        if (name.value === shown) return;
        shown = name.value;
        if (!shown) element.textContent = "no favourites yet: Save CREPS Favourite";
        const query = { filename: `${shown}.png`, subfolder: FOLDER, type: "output", rand: Math.random() };
        if (shown) picture.src = api.apiURL(`/view?${new URLSearchParams(query)}`);
    };
    const looking = setInterval(look, LOOK_MS), removed = node.onRemoved;
    look();
    node.onRemoved = function () {
        clearInterval(looking);
        return removed?.apply(this, arguments);
    };
}

app.registerExtension({
    name: "creps.favourites",
    nodeCreated(node) {
        if (node.constructor.comfyClass === "CREPS_LoadFavourite") addThumbnail(node);
    },
});
