// What web/*.js use of ComfyUI's frontend, which serves these modules: its published types, and what they leave out.

declare module "*/scripts/app.js" {
    export const app: import("@comfyorg/comfyui-frontend-types").ComfyApp;
}
declare module "*/scripts/api.js" {
    export const api: import("@comfyorg/comfyui-frontend-types").ComfyApi;
}

interface Window {
    comfyAPI?: { utils?: { applyTextReplacements?(graph: unknown, text: string): string } };
}

type FrontendNode = import("@comfyorg/comfyui-frontend-types").ComfyApp["rootGraph"]["nodes"][number];
type Widget = NonNullable<FrontendNode["widgets"]>[number];
type ComfyNode = FrontendNode & {
    constructor: { comfyClass?: string };
    addDOMWidget(name: string, type: string, element: HTMLElement, options: {
        getValue?(): unknown;
        setValue?(value: unknown): void;
        getMinHeight?(): number;
        hideOnZoom?: boolean;
        serialize?: boolean;
    }): Widget;
};
