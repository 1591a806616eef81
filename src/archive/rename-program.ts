import { chmod, readFile, rename, rm, writeFile } from "node:fs/promises";
import { arch } from "node:os";
import { childProcess } from "../io/builtin.ts";
import { randomHex } from "../io/random.ts";
import { RefusedError, systemErrorCode } from "../errors.ts";

/** Size of an ELF header and of one program header. @source elf(5): Elf64_Ehdr, Elf64_Phdr */
const HEADER_BYTES = 64;
const SEGMENT_BYTES = 56;
const LOAD_ADDRESS = 0x40_0000;
/** The largest page of any kernel that runs this. */
const ALIGNMENT = 0x1_0000;

interface Machine {
  /** e_machine. */
  readonly id: number;
  readonly code: readonly number[];
}

/**
 * rename(argv[1], argv[2]): ends with 0 if that worked, 1 if not, 2 unless there are two arguments.
 * Nothing else is linked in, so that it starts in a third of the time of `mv`; and unlike `mv` it
 * never copies.
 */
const MACHINES: ReadonlyMap<string, Machine> = new Map([
  [
    "x64",
    {
      id: 62,
      code: [
        [0x48, 0x83, 0x3c, 0x24, 0x03], // cmp qword [rsp], 3    argc
        [0x75, 0x1e], //                    jne wrong
        [0x48, 0x8b, 0x7c, 0x24, 0x10], // mov rdi, [rsp+16]     argv[1]
        [0x48, 0x8b, 0x74, 0x24, 0x18], // mov rsi, [rsp+24]     argv[2]
        [0xb8, 82, 0, 0, 0], //             mov eax, rename
        [0x0f, 0x05], //                    syscall
        [0x31, 0xff], //                    xor edi, edi
        [0x85, 0xc0], //                    test eax, eax
        [0x40, 0x0f, 0x95, 0xc7], //        setne dil
        [0xb8, 60, 0, 0, 0], //       exit: mov eax, exit
        [0x0f, 0x05], //                    syscall
        [0xbf, 2, 0, 0, 0], //       wrong: mov edi, 2
        [0xeb, 0xf2], //                    jmp exit
      ].flat(),
    },
  ],
  [
    "arm64",
    {
      id: 183,
      code: [
        0xf940_03e9, //        ldr x9, [sp]         argc
        0xf100_0d3f, //        cmp x9, 3
        0x5400_0161, //        b.ne wrong
        0xf940_0be1, //        ldr x1, [sp, 16]     argv[1]
        0xf940_0fe3, //        ldr x3, [sp, 24]     argv[2]
        0x9280_0c60, //        mov x0, AT_FDCWD
        0x9280_0c62, //        mov x2, AT_FDCWD
        0xd280_04c8, //        mov x8, renameat
        0xd400_0001, //        svc 0
        0xf100_001f, //        cmp x0, 0
        0x9a9f_07e0, //        cset x0, ne
        0xd280_0ba8, //  exit: mov x8, exit
        0xd400_0001, //        svc 0
        0xd280_0040, // wrong: mov x0, 2
        0x17ff_fffd, //        b exit
      ].flatMap((word) => [word & 0xff, (word >> 8) & 0xff, (word >> 16) & 0xff, word >>> 24]),
    },
  ],
]);

/** The program for a kind of machine as Node.js names it; undefined where we have none. */
export function renameProgram(architecture: string): Buffer | undefined {
  const machine = MACHINES.get(architecture);
  if (machine === undefined) return undefined;
  const codeAt = HEADER_BYTES + SEGMENT_BYTES;
  const program = Buffer.alloc(codeAt + machine.code.length);
  program.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  program.writeUInt16LE(2, 16);
  program.writeUInt16LE(machine.id, 18);
  program.writeUInt32LE(1, 20);
  program.writeBigUInt64LE(BigInt(LOAD_ADDRESS + codeAt), 24);
  program.writeBigUInt64LE(BigInt(HEADER_BYTES), 32);
  program.writeUInt16LE(HEADER_BYTES, 52);
  program.writeUInt16LE(SEGMENT_BYTES, 54);
  program.writeUInt16LE(1, 56);
  const LOAD = 1;
  const READ_AND_EXECUTE = 5;
  program.writeUInt32LE(LOAD, HEADER_BYTES);
  program.writeUInt32LE(READ_AND_EXECUTE, HEADER_BYTES + 4);
  program.writeBigUInt64LE(BigInt(LOAD_ADDRESS), HEADER_BYTES + 16);
  program.writeBigUInt64LE(BigInt(LOAD_ADDRESS), HEADER_BYTES + 24);
  program.writeBigUInt64LE(BigInt(program.length), HEADER_BYTES + 32);
  program.writeBigUInt64LE(BigInt(program.length), HEADER_BYTES + 40);
  program.writeBigUInt64LE(BigInt(ALIGNMENT), HEADER_BYTES + 48);
  program.set(machine.code, codeAt);
  return program;
}

/**
 * Makes sure that the program stands there. Rejects with RefusedError where there is none for this
 * machine, and with what the file system says.
 */
export async function installRenameProgram(path: string): Promise<void> {
  const program = renameProgram(arch());
  if (program === undefined) throw new RefusedError(`there is no such program for ${arch()}`);
  try {
    if ((await readFile(path)).equals(program)) return;
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw error;
  }
  const temporaryPath = `${path}.${randomHex(8)}`;
  try {
    await writeFile(temporaryPath, program);
    await chmod(temporaryPath, 0o700);
    await rename(temporaryPath, path);
  } finally {
    await rm(temporaryPath, { force: true });
  }
}

/**
 * Whether the installed program renames a file here: not on a file system that forbids programs, or
 * on another machine than it is for.
 */
export async function canRename(path: string): Promise<boolean> {
  const from = `${path}.from-${randomHex(8)}`;
  const to = `${from}-to`;
  try {
    await writeFile(from, from);
    const { status } = childProcess().spawnSync(path, [from, to], { stdio: "ignore" });
    return status === 0 && (await readFile(to, "utf8")) === from;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return false;
  } finally {
    await rm(from, { force: true });
    await rm(to, { force: true });
  }
}
