/** The package has the types of this file, but not where TypeScript looks for them. */
declare module "aedes-persistence/asyncPersistence.js" {
  export { default } from "aedes-persistence/types/asyncPersistence.js"
}
