/** Builds what a specification describes, without starting anything. */
import type { AnySpec, SupervisorOptions } from "../ChildSpec.ts"
import { Cell } from "./Cell.ts"
import { DynamicNode } from "./DynamicNode.ts"
import type { Kernel } from "./Kernel.ts"
import type { Node, Owner } from "./Node.ts"
import { SupervisorNode } from "./SupervisorNode.ts"

export const makeNode = (kernel: Kernel, parentPath: string, spec: AnySpec, owner: Owner): Node => {
  switch (spec._tag) {
    case "Actor":
      return new Cell(kernel, parentPath, spec, owner)
    case "Supervisor":
      return new SupervisorNode(
        kernel,
        parentPath,
        spec as typeof spec & { options: SupervisorOptions },
        owner
      )
    case "Dynamic":
      return new DynamicNode(kernel, parentPath, spec, owner)
  }
}
