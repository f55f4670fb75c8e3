// Elements, icons, and small controls.

/** @typedef {Record<string, any>} Attributes listeners have names that begin with "on" */

/**
 * Make an element: `el("button", {class: "x", onclick: f, "aria-label": "y"}, child, "text")`.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} attributes
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (value === true) element.setAttribute(name, "");
        else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
}

const PATHS = {
    home: "M4 11.5 12 5l8 6.5M6.5 10v9h11v-9",
    turn: "M19 12a7 7 0 1 1-2.3-5.2M19 4v4.5h-4.5",
    key: "M12 5v14M5 12h14",
    info: "M5 19V9M10 19V5M15 19v-7M20 19v-4",
    help: "M9.2 9.3a2.9 2.9 0 1 1 4.3 2.5c-1 .6-1.5 1.1-1.5 2.2M12 17.6v.2",
    save: "M12 4v11m0 0 4.5-4.5M12 15l-4.5-4.5M5 19.5h14",
    frame: "M4 9V5.5h4M20 9V5.5h-4M4 15v3.5h4M20 15v3.5h-4",
    previous: "M14.5 6 8.5 12l6 6",
    next: "m9.5 6 6 6-6 6",
    up: "m6.5 14.5 5.5-6 5.5 6",
    down: "m6.5 9.5 5.5 6 5.5-6",
    dice: "M6.5 4.5h11a2 2 0 0 1 2 2v11a2 2 0 0 1-2 2h-11a2 2 0 0 1-2-2v-11a2 2 0 0 1 2-2Z"
        + "M9 9v.1M15 15v.1M15 9v.1M9 15v.1M12 12v.1",
    play: "M8 5.5v13l10.5-6.5Z",
    pause: "M8.5 5.5v13M15.5 5.5v13",
    loop: "M6 15.5A4.5 4.5 0 0 1 6 7h11m0 0-3-3m3 3-3 3M18 8.5A4.5 4.5 0 0 1 18 17H7m0 0 3-3m-3 3 3 3",
    remove: "M7 7l10 10M17 7 7 17",
    middle: "M12 4v4M12 16v4M4 12h4M16 12h4M12 12v.1",
};

/** An icon. @param {keyof typeof PATHS} name */
export function icon(name) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", PATHS[name]);
    svg.append(path);
    return svg;
}

/**
 * A button with an icon.
 * @param {keyof typeof PATHS} name
 * @param {string} label
 * @param {(event: MouseEvent) => void} onclick
 * @param {string} key its keyboard shortcut, for the tooltip
 * @param {Attributes} attributes
 */
export function button(name, label, onclick, key = "", attributes = {}) {
    const title = key ? `${label} (${key})` : label;
    return el("button", { type: "button", class: "icon", title, "aria-label": label, onclick, ...attributes }, icon(name));
}

/**
 * A choice.
 * @template {string} Value
 * @param {string} label
 * @param {readonly (readonly [Value, string])[]} options value and text
 * @param {(value: Value) => void} onchange
 * @param {Attributes} attributes
 */
export function select(label, options, onchange, attributes = {}) {
    const choices = options.map(([value, text]) => el("option", { value }, text));
    const element = el("select", { "aria-label": label, title: label, ...attributes }, ...choices);
    element.addEventListener("change", () => onchange(/** @type {Value} */ (element.value)));
    return element;
}

/**
 * A field for a number. Enter and leaving the field call `onchange` with a valid number, clamped.
 * @param {string} label
 * @param {Attributes & {min: number, max: number, onchange: (value: number) => void}} options
 */
export function numberField(label, { min, max, step = 1, onchange, ...attributes }) {
    const element = el("input", {
        type: "number", inputmode: "decimal", "aria-label": label, title: label, max, step,
        min: Number.isInteger(min) ? min : null, // arrow keys step from it
        ...attributes,
    });
    element.addEventListener("change", () => {
        const value = element.valueAsNumber;
        if (Number.isFinite(value)) onchange(Math.min(Math.max(value, min), max));
    });
    return element;
}

/**
 * Set the value of a field unless the user is typing in it.
 * @param {HTMLInputElement | HTMLSelectElement} field
 * @param {number | string} value
 */
export function show(field, value) {
    if (!hasFocus(field) || field.type === "range") field.value = String(value);
}

/** Whether an element has the focus, in a shadow root too. @param {Element} element */
export function hasFocus(element) {
    return /** @type {Document | ShadowRoot} */ (element.getRootNode()).activeElement === element;
}
