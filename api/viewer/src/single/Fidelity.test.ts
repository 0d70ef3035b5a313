import { expect, test } from "vitest";
import { writeFigure } from "./Fidelity";

test("a figure that rounds to zero has no sign, and others have a true minus", () => {
  expect(writeFigure(-0.0012)).toBe("0.00");
  expect(writeFigure(-0.905)).toBe("−0.91");
  expect(writeFigure(0.5)).toBe("0.50");
  expect(writeFigure(null)).toBe("–");
});
