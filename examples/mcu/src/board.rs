//! The board: start, memory, output over semihosting, and a counter of instructions.

use core::arch::{asm, global_asm};
use core::fmt;
use core::panic::PanicInfo;

// The vector table: the initial stack pointer, the entry, and one handler for everything else.
global_asm!(
    ".section .vectors, \"a\"",
    ".word STACK_TOP",
    ".word start",
    ".rept 14",
    ".word fault",
    ".endr",
    ".text",
    ".thumb",
    ".thumb_func",
    ".global start",
    "start:",
    // Access to the floating-point unit: coprocessors 10 and 11.
    "ldr r0, =0xe000ed88",
    "ldr r1, [r0]",
    "orr r1, r1, #0xf00000",
    "str r1, [r0]",
    "dsb",
    "isb",
    // Initial values of variables, and zeros.
    "ldr r0, =DATA_START",
    "ldr r1, =DATA_END",
    "ldr r2, =DATA_LOAD",
    "1: cmp r0, r1",
    "ittt lo",
    "ldrlo r3, [r2], #4",
    "strlo r3, [r0], #4",
    "blo 1b",
    "ldr r0, =BSS_START",
    "ldr r1, =BSS_END",
    "movs r2, #0",
    "2: cmp r0, r1",
    "itt lo",
    "strlo r2, [r0], #4",
    "blo 2b",
    "bl run",
    ".pool",
);

#[unsafe(no_mangle)]
extern "C" fn run() -> ! {
    exit(crate::main())
}

#[unsafe(no_mangle)]
extern "C" fn fault() -> ! {
    print(b"error: the processor reports a fault\n\0");
    exit(false)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    print(b"error: panic\n\0");
    exit(false)
}

/// Asks the host for a service.
fn semihosting(operation: u32, argument: usize) {
    // SAFETY: QEMU, like a debugger, executes the request at this breakpoint, and writes only its result.
    unsafe { asm!("bkpt 0xab", inout("r0") operation => _, in("r1") argument, options(nostack)) }
}

/// Prints bytes up to a zero.
fn print(text: &[u8]) {
    semihosting(0x04, text.as_ptr() as usize);
}

fn exit(success: bool) -> ! {
    // "Application exit", or "run-time error".
    semihosting(0x18, if success { 0x20026 } else { 0x20023 });
    loop {
        core::hint::spin_loop();
    }
}

/// The output of the host.
pub(crate) struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.as_bytes().chunks(63) {
            let mut buffer = [0; 64];
            buffer[..part.len()].copy_from_slice(part);
            print(&buffer);
        }
        Ok(())
    }
}

/// Counts instructions by the timer SysTick, which counts down at 25 MHz: QEMU executes one instruction per nanosecond with
/// `-icount shift=0`, so that a tick is 40 instructions.
pub(crate) struct Instructions;

impl Instructions {
    const CONTROL: *mut u32 = 0xe000_e010 as *mut u32;
    const RELOAD: *mut u32 = 0xe000_e014 as *mut u32;
    const CURRENT: *mut u32 = 0xe000_e018 as *mut u32;
    /// The timer has 24 bits.
    const LARGEST: u32 = 0xff_ffff;

    pub(crate) fn start() -> Self {
        // SAFETY: the registers of the timer, which nothing else uses.
        unsafe {
            Self::CONTROL.write_volatile(0);
            Self::RELOAD.write_volatile(Self::LARGEST);
            Self::CURRENT.write_volatile(0);
            // On, by the clock of the processor, without interrupts.
            Self::CONTROL.write_volatile(0b101);
        }
        Self
    }

    pub(crate) fn stop(self) -> u32 {
        // SAFETY: as in `start`.
        40 * (Self::LARGEST - unsafe { Self::CURRENT.read_volatile() })
    }
}
