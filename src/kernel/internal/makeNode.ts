/** Builds what a specification describes, without starting anything. */
import type { SupervisorOptions } from "../ChildSpec.ts"
import { Cell } from "./Cell.ts"
import { DynamicNode } from "./DynamicNode.ts"
import type { MakeNode, Node } from "./Node.ts"
import { SupervisorNode } from "./SupervisorNode.ts"

export const makeNode: MakeNode = (kernel, parentPath, spec, owner): Node => {
  switch (spec._tag) {
    case "Actor":
      return new Cell(kernel, parentPath, spec, owner)
    case "Supervisor":
      return new SupervisorNode(
        kernel,
        parentPath,
        spec as typeof spec & { options: SupervisorOptions },
        owner,
        makeNode
      )
    case "Dynamic":
      return new DynamicNode(kernel, parentPath, spec, owner)
  }
}
