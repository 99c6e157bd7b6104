"""The default confinement: capabilities, system calls, masked and read-only paths.

The same as Docker's (moby, profiles/seccomp and oci/defaults): a stack that runs there runs
here, and what is refused there is refused here.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from runtime.errors import RuntimeFault, Unsupported
from runtime.linux import capabilities, files, seccomp
from runtime.linux.seccomp import Argument, Rule, refuse

DEFAULT_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
    "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip

MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip

READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def thermal_throttle_paths() -> tuple[str, ...]:
    """The per-CPU counters that leak what neighbours do (GHSA-6fw5-f8r9-fgfm)."""
    cpus = Path("/sys/devices/system/cpu")
    return tuple(sorted(str(path) for path in cpus.glob("cpu[0-9]*/thermal_throttle")))


_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3
faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat listmount listxattr
listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod
mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev
pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat
renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64
statmount statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink
unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
"""
_MEMORY = """
brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
pkey_mprotect remap_file_pages
"""
_PROCESSES = """
capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid geteuid32
getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getrandom
getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid
get_thread_area gettid getuid getuid32 ioprio_get ioprio_set landlock_add_rule
landlock_create_ruleset landlock_restrict_self pidfd_open prctl prlimit64 process_mrelease
riscv_hwprobe rseq sched_getaffinity sched_getattr sched_getparam sched_get_priority_max
sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp setfsgid
setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid
setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit
set_robust_list setsid set_thread_area set_tid_address setuid setuid32 sysinfo times ugetrlimit
uname uretprobe vfork wait4 waitid waitpid
"""
_SIGNALS_AND_TIME = """
adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday kill nanosleep pause
pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer
sigaltstack signalfd signalfd4 sigprocmask sigreturn tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 tkill
"""
_COMMUNICATION = """
accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark futex futex_requeue
futex_time64 futex_wait futex_waitv futex_wake getpeername getsockname getsockopt
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
io_pgetevents io_pgetevents_time64 io_setup io_submit ipc listen mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget
msgrcv msgsnd _newselect pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 recv recvfrom
recvmmsg recvmmsg_time64 recvmsg select semctl semget semop semtimedop semtimedop_time64 send
sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair
"""

_WITH_CAPABILITY: dict[str, str] = {
    "BPF": "bpf",
    "DAC_READ_SEARCH": "open_by_handle_at",
    "PERFMON": "perf_event_open",
    "SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie"
        " lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount"
        " open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog"
        " umount umount2 unshare"
    ),
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module init_module finit_module",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": ("kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    "SYS_RAWIO": "iopl ioperm",
    "SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "SYS_TTY_CONFIG": "vhangup",
    "SYSLOG": "syslog",
}

_PER_MACHINE: dict[str, str] = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": (
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"
    ),
    "ppc64le": "sync_file_range2 swapcontext",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
    "riscv64": "riscv_flush_icache",
}
_ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "x86_64": ("x86", "x32"),
    "aarch64": ("arm",),
    "s390x": ("s390",),
}

# An older libseccomp knows only the first of them.
_NEWEST_KNOWN = ("process_mrelease", "futex_waitv", "cachestat", "mseal", "removexattrat")
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW* (clone(2))
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40


def seccomp_rules(held: Iterable[str], machine: str) -> list[Rule]:
    """The rules for a container that holds the capabilities `held` on `machine`."""
    held = set(held)
    always = (_FILES + _MEMORY + _PROCESSES + _SIGNALS_AND_TIME + _COMMUNICATION).split()
    rules = [
        Rule(tuple(always)),
        Rule(("process_vm_readv", "process_vm_writev", "ptrace")),
        Rule(("socket",), arguments=(Argument(0, "LT", _AF_ALG),)),
        Rule(("socket",), arguments=(Argument(0, "EQ", _AF_ALG + 1),)),
        Rule(("socket",), arguments=(Argument(0, "GT", _AF_VSOCK),)),
        *(
            Rule(("personality",), arguments=(Argument(0, "EQ", persona),))
            for persona in _PERSONALITIES
        ),
    ]
    if machine in _PER_MACHINE:
        rules.append(Rule(tuple(_PER_MACHINE[machine].split())))
    rules += [
        Rule(tuple(names.split()))
        for capability, names in _WITH_CAPABILITY.items()
        if capability in held
    ]
    if "SYS_ADMIN" not in held:
        flags = 1 if machine == "s390x" else 0
        plain = Argument(flags, "MASKED_EQ", _NEW_NAMESPACES, 0)
        rules.append(Rule(("clone",), arguments=(plain,)))
        # glibc falls back to clone, whose flags a filter can see.
        rules.append(Rule(("clone3",), action=refuse(errno.ENOSYS)))
    return rules


def seccomp_program(held: Sequence[str], cache: Path) -> bytes:
    """The compiled filter for the capabilities `held`, from `cache` where it is there.

    Raises Unsupported when libseccomp is not installed.
    """
    machine = os.uname().machine
    rules = seccomp_rules(held, machine)
    architectures = _ARCHITECTURES.get(machine, ())
    identity = repr((machine, architectures, _NEWEST_KNOWN, rules)).encode()
    path = cache / f"{hashlib.sha256(identity).hexdigest()}.bpf"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    try:
        program = seccomp.compile_filter(
            rules,
            default=refuse(errno.EPERM),
            architectures=architectures,
            newest=_NEWEST_KNOWN,
        )
    except OSError as error:
        raise Unsupported(
            "compile the system call filter", hint="install the package libseccomp2"
        ) from error
    cache.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, program, durable=False)
    return program


def held_capabilities(
    add: Iterable[str], drop: Iterable[str], *, privileged: bool, available: int
) -> tuple[str, ...]:
    """The capabilities of a container, in the kernel's order (Compose `cap_add`, `cap_drop`).

    Names may carry CAP_ and be in any case; ALL stands for every one. As in Docker, what is
    added wins over `drop: ALL`, what is dropped by name over `add: ALL`. Nothing but what is
    added by name goes beyond the runtime's own, which are the bits `available`.
    """
    known = tuple(name for number, name in enumerate(capabilities.NAMES) if available >> number & 1)
    if privileged:
        return known
    added = {_capability(name) for name in add}
    dropped = {_capability(name) for name in drop}
    held = set(known) if "ALL" in added else set(DEFAULT_CAPABILITIES) & set(known)
    if "ALL" in dropped:
        held = set()
    held |= added - {"ALL"}
    if "ALL" in added and "ALL" not in dropped:
        held |= set(known)
    held -= dropped - {"ALL"}
    return tuple(name for name in capabilities.NAMES if name in held)


def _capability(name: str) -> str:
    plain = name.upper().removeprefix("CAP_")
    if plain != "ALL" and plain not in capabilities.NUMBERS:
        raise RuntimeFault(
            f"unknown capability {name}", hint="names are those of capabilities(7), or ALL"
        )
    return plain
