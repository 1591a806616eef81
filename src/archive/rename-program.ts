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

/** How often the program looks, about a millisecond apart, for what it waits for. */
const LOOKS = 1000;
const PAUSE_NS = 1_000_000;

/**
 * With four arguments or more, rename(argv[1], argv[2]): ends with 0 if that worked, and else
 * becomes the program of argv[3] with the words behind it, in the same process. Nothing else is
 * linked in, so that it starts in a third of the time of `mv`; and unlike `mv` it never copies.
 *
 * With two: waits until argv[1] exists, and ends with 0; with 1 once it does not and argv[2] does
 * not either, or after about a second.
 *
 * With any other number, and where argv[3] can't be started, it ends with 126: to PostgreSQL a lower
 * one but 0 would be the end of the archive.
 */
const MACHINES: ReadonlyMap<string, Machine> = new Map([
  [
    "x64",
    {
      id: 62,
      code: [
        [0x48, 0x83, 0x3c, 0x24, 0x03], // cmp qword [rsp], 3    argc
        [0x74, 0x4a], //                    je wait
        [0x48, 0x83, 0x3c, 0x24, 0x05], // cmp qword [rsp], 5
        [0x7c, 0x2d], //                    jl wrong
        [0x48, 0x8b, 0x7c, 0x24, 0x10], // mov rdi, [rsp+16]     argv[1]
        [0x48, 0x8b, 0x74, 0x24, 0x18], // mov rsi, [rsp+24]     argv[2]
        [0xb8, 82, 0, 0, 0], //             mov eax, rename
        [0x0f, 0x05], //                    syscall
        [0x85, 0xc0], //                    test eax, eax
        [0x74, 0x1f], //                    je ends
        [0x48, 0x8d, 0x74, 0x24, 0x20], // lea rsi, [rsp+32]     argv + 3
        [0x48, 0x8b, 0x3e], //              mov rdi, [rsi]
        [0x48, 0x8b, 0x04, 0x24], //        mov rax, [rsp]
        [0x48, 0x8d, 0x54, 0xc4, 0x10], // lea rdx, [rsp+8*rax+16]  environment
        [0xb8, 59, 0, 0, 0], //             mov eax, execve
        [0x0f, 0x05], //                    syscall
        [0xbf, 126, 0, 0, 0], //     wrong: mov edi, 126
        [0xeb, 0x08], //                    jmp exit
        [0x31, 0xff], //              ends: xor edi, edi
        [0x85, 0xc0], //                    test eax, eax
        [0x40, 0x0f, 0x95, 0xc7], //        setne dil
        [0xb8, 60, 0, 0, 0], //       exit: mov eax, exit
        [0x0f, 0x05], //                    syscall
        [0x41, 0xbc, ...word(LOOKS)], // wait: mov r12d, LOOKS
        [0x48, 0x8b, 0x7c, 0x24, 0x10], // look: mov rdi, [rsp+16]   argv[1]
        [0x31, 0xf6], //                    xor esi, esi         F_OK
        [0xb8, 21, 0, 0, 0], //             mov eax, access
        [0x0f, 0x05], //                    syscall
        [0x85, 0xc0], //                    test eax, eax
        [0x74, 0xd9], //                    je ends
        [0x48, 0x8b, 0x7c, 0x24, 0x18], // mov rdi, [rsp+24]     argv[2]
        [0x31, 0xf6], //                    xor esi, esi
        [0xb8, 21, 0, 0, 0], //             mov eax, access
        [0x0f, 0x05], //                    syscall
        [0x85, 0xc0], //                    test eax, eax
        [0x75, 0xc7], //                    jne ends
        [0x68, ...word(PAUSE_NS)], //       push PAUSE_NS        tv_nsec
        [0x6a, 0x00], //                    push 0               tv_sec
        [0x48, 0x89, 0xe7], //              mov rdi, rsp
        [0x31, 0xf6], //                    xor esi, esi
        [0xb8, 35, 0, 0, 0], //             mov eax, nanosleep
        [0x0f, 0x05], //                    syscall
        [0x58, 0x58], //                    pop rax, pop rax
        [0x41, 0xff, 0xcc], //              dec r12d
        [0x75, 0xc2], //                    jnz look
        [0xb8, 1, 0, 0, 0], //              mov eax, 1
        [0xeb, 0xa6], //                    jmp ends
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
        0x5400_02c0, //        b.eq wait
        0xf100_153f, //        cmp x9, 5
        0x5400_01cb, //        b.lt wrong
        0xf940_0be1, //        ldr x1, [sp, 16]     argv[1]
        0xf940_0fe3, //        ldr x3, [sp, 24]     argv[2]
        0x9280_0c60, //        mov x0, AT_FDCWD
        0x9280_0c62, //        mov x2, AT_FDCWD
        0xd280_04c8, //        mov x8, renameat
        0xd400_0001, //        svc 0
        0xb400_0120, //        cbz x0, ends
        0xf940_13e0, //        ldr x0, [sp, 32]     argv[3]
        0x9100_83e1, //        add x1, sp, 32       argv + 3
        0x8b29_6fe2, //        add x2, sp, x9, lsl 3
        0x9100_4042, //        add x2, x2, 16       environment
        0xd280_1ba8, //        mov x8, execve
        0xd400_0001, //        svc 0
        0xd280_0fc0, // wrong: mov x0, 126
        0x1400_0003, //        b exit
        0xf100_001f, //  ends: cmp x0, 0
        0x9a9f_07e0, //        cset x0, ne
        0xd280_0ba8, //  exit: mov x8, exit
        0xd400_0001, //        svc 0
        0xd280_0013 | (LOOKS << 5), // wait: mov x19, LOOKS
        0xd280_0014 | ((PAUSE_NS & 0xffff) << 5), // mov x20, PAUSE_NS
        0xf2a0_0014 | ((PAUSE_NS >>> 16) << 5), //   movk x20, PAUSE_NS >> 16, lsl 16
        0xd100_43ff, //        sub sp, sp, 16
        0xa900_53ff, //        stp xzr, x20, [sp]   tv_sec, tv_nsec
        0x9280_0c60, //  look: mov x0, AT_FDCWD
        0xf940_13e1, //        ldr x1, [sp, 32]     argv[1]
        0xd280_0002, //        mov x2, F_OK
        0xd280_0608, //        mov x8, faccessat
        0xd400_0001, //        svc 0
        0xb4ff_fe40, //        cbz x0, ends
        0x9280_0c60, //        mov x0, AT_FDCWD
        0xf940_17e1, //        ldr x1, [sp, 40]     argv[2]
        0xd280_0002, //        mov x2, F_OK
        0xd280_0608, //        mov x8, faccessat
        0xd400_0001, //        svc 0
        0xb5ff_fd80, //        cbnz x0, ends
        0x9100_03e0, //        mov x0, sp
        0xd280_0001, //        mov x1, 0
        0xd280_0ca8, //        mov x8, nanosleep
        0xd400_0001, //        svc 0
        0xf100_0673, //        subs x19, x19, 1
        0x54ff_fde1, //        b.ne look
        0xd280_0020, //        mov x0, 1
        0x17ff_ffe4, //        b ends
      ].flatMap(word),
    },
  ],
]);

/** Four bytes, little-endian. */
function word(value: number): readonly number[] {
  return [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >>> 24];
}

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
    const { status } = childProcess().spawnSync(path, [from, to, path, from], { stdio: "ignore" });
    return status === 0 && (await readFile(to, "utf8")) === from;
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return false;
  } finally {
    await rm(from, { force: true });
    await rm(to, { force: true });
  }
}
