/* Makes one system call after the other that a container must not be able to use, or must, and
   prints "name errno" for each: 0 where it worked. With arguments: pokes at /proc instead. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *name, long result)
{
    printf("%s %d\n", name, result < 0 ? errno : 0);
    fflush(stdout);
}

#define CALL(name, ...)                          \
    do {                                         \
        errno = 0;                               \
        say(name, syscall(__VA_ARGS__));         \
    } while (0)

/* A call with the 32-bit entry of x86; what the kernel answers is negative errno. */
static void say_32(const char *name, unsigned number, unsigned first, unsigned second, unsigned third)
{
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(second), "d"(third)
                     : "r8", "r9", "r10", "r11", "memory");
    printf("%s %d\n", name, (int)result < 0 ? -(int)result : 0);
#else
    printf("%s -1\n", name);
#endif
    fflush(stdout);
}

/* In a child, as a refused call of a foreign entry may kill. */
static void guarded(void (*body)(void))
{
    pid_t child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        printf("killed %d\n", WTERMSIG(status));
    fflush(stdout);
}

static void calls_32(void)
{
    say_32("i386_getpid", 20, 0, 0, 0);
    say_32("i386_mount", 21, 0, 0, 0);
    say_32("i386_unshare", 310, 0x20000, 0, 0);
    say_32("i386_keyctl", 288, 0, 0, 0);
    say_32("i386_bpf", 357, 0, 0, 0);
    say_32("i386_socket_alg", 359, 38, 5, 0);
    say_32("i386_socket_vsock", 359, 40, 1, 0);
}

static void calls_x32(void)
{
#ifdef __x86_64__
    CALL("x32_mount", 0x40000000 | SYS_mount, 0, 0, 0, 0, 0);
    CALL("x32_unshare", 0x40000000 | SYS_unshare, CLONE_NEWNS);
    CALL("x32_keyctl", 0x40000000 | SYS_keyctl, 0, 0, 0, 0, 0);
#endif
}

static int hammer(const char *path, int tries)
{
    int opened = 0;
    for (int number = 0; number < tries; number++) {
        int fd = open(path, O_WRONLY);
        if (fd >= 0) {
            opened++;
            close(fd);
        }
    }
    return opened;
}

/* Opens /proc/<pid>/exe of everything for writing, and looks through its root and descriptors. */
static int poke(int seconds)
{
    char path[64], mark[64];
    int found = 0;
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    unsigned long rounds = 0;
    do {
        for (int pid = 2; pid < 64; pid++) {
            if (pid == getpid())
                continue;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            found += hammer(path, 1);
            snprintf(mark, sizeof mark, "/proc/%d/root/outside", pid);
            if (access(mark, F_OK) == 0) {
                printf("saw the host by %s\n", mark);
                found++;
            }
            for (int fd = 3; fd < 12; fd++) {
                snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
                int file = open(path, O_RDONLY | O_NONBLOCK);
                if (file >= 0) {
                    char name[256] = "";
                    ssize_t size = readlink(path, name, sizeof name - 1);
                    int own_root = strcmp(name, "/") == 0 && faccessat(file, "outside", F_OK, 0);
                    if (size > 0 && !own_root && strncmp(name, "/dev/", 5) != 0) {
                        printf("opened %s, %s\n", path, name);
                        found++;
                    }
                    close(file);
                }
            }
        }
        rounds++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec);
    printf("rounds %d found %d\n", rounds > 0, found);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "poke") == 0)
        return poke(atoi(argv[2]));
    if (argc > 2 && strcmp(argv[1], "write") == 0) {
        printf("%d\n", hammer(argv[2], 1000));
        return 0;
    }
    CALL("getpid", SYS_getpid);
    CALL("socket_inet", SYS_socket, AF_INET, SOCK_STREAM, 0);
    CALL("socket_unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    CALL("socket_alg", SYS_socket, 38, SOCK_SEQPACKET, 0);
    CALL("socket_vsock", SYS_socket, 40, SOCK_STREAM, 0);
    CALL("keyctl", SYS_keyctl, 0, -3, 1, 0, 0);
    CALL("add_key", SYS_add_key, "user", "x", "y", 1, -3);
    CALL("request_key", SYS_request_key, "user", "x", 0, 0);
    CALL("unshare_user", SYS_unshare, CLONE_NEWUSER);
    CALL("unshare_ns", SYS_unshare, CLONE_NEWNS);
    CALL("setns", SYS_setns, 0, 0);
    CALL("clone_user", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    CALL("clone3", SYS_clone3, 0, 0);
    CALL("mount", SYS_mount, "none", "/tmp", "tmpfs", 0, 0);
    CALL("umount2", SYS_umount2, "/proc", MNT_DETACH);
    CALL("pivot_root", SYS_pivot_root, "/", "/");
    CALL("fsopen", SYS_fsopen, "tmpfs", 0);
    CALL("open_tree", SYS_open_tree, -100, "/", 0);
    CALL("move_mount", SYS_move_mount, -1, "", -1, "", 0);
    CALL("bpf", SYS_bpf, 0, 0, 0);
    CALL("perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0);
    CALL("userfaultfd", SYS_userfaultfd, 0);
    CALL("io_uring_setup", SYS_io_uring_setup, 1, 0);
    CALL("init_module", SYS_init_module, 0, 0, 0);
    CALL("kexec_load", SYS_kexec_load, 0, 0, 0, 0);
    CALL("reboot", SYS_reboot, 0, 0, 0, 0);
    CALL("swapon", SYS_swapon, "/", 0);
    CALL("quotactl", SYS_quotactl, 0, 0, 0, 0);
    CALL("acct", SYS_acct, 0);
    CALL("syslog", SYS_syslog, 3, 0, 0);
    CALL("settimeofday", SYS_settimeofday, 0, 0);
    CALL("open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0);
    CALL("sethostname", SYS_sethostname, "x", 1);
    CALL("personality_linux", SYS_personality, 0);
    CALL("personality_aslr", SYS_personality, ADDR_NO_RANDOMIZE);
#ifdef SYS_iopl
    CALL("iopl", SYS_iopl, 3);
#endif
    CALL("unknown", 1000);
    char byte = 'x';
    errno = 0;
    say("tiocsti", ioctl(0, TIOCSTI, &byte));
    guarded(calls_32);
    guarded(calls_x32);
    return 0;
}
