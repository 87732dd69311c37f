/** The stamp lies in dist/ itself, so that it goes when dist/ goes. */
export declare const buildStampPath: string
/** The hash of the present sources. */
export declare const sourcesHash: () => string
/** True when every program whose entry exists was bundled from the present sources. */
export declare const buildIsFresh: () => boolean
