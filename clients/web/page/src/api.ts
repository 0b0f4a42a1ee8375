/** The client's types, by one name for the whole page. */
export type * from "../../client/src/api.ts";
