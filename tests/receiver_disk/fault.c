/* Put before the C library with LD_PRELOAD: makes calls on some files slow, or one of them fail. Told by the environment:
 * FAULT_PATH   only files whose path contains this
 * FAULT_CALL   "write" or "sync": which calls are counted
 * FAULT_AT     the number of the call that fails, from 1; 0 for none
 * FAULT_ERRNO  how it fails
 * FAULT_MARK   a file that then is made, with the path of the file on which it failed
 * FAULT_WRITE_MS, FAULT_SYNC_MS  how long each such call takes longer
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static atomic_long calls;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static void wait_ms(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (ms > 0 && nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* 1 if this call is to fail; errno is set then. */
static int fault(int fd, const char *call) {
    char link[64], path[4096];
    const char *wanted = getenv("FAULT_PATH");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (wanted == NULL || len < 0) return 0;
    path[len] = 0;
    if (strstr(path, wanted) == NULL) return 0;
    wait_ms(number(strcmp(call, "write") == 0 ? "FAULT_WRITE_MS" : "FAULT_SYNC_MS"));
    const char *counted = getenv("FAULT_CALL");
    if (counted == NULL || strcmp(counted, call) != 0) return 0;
    if (atomic_fetch_add(&calls, 1) + 1 != number("FAULT_AT")) return 0;
    const char *mark = getenv("FAULT_MARK");
    int out = mark ? open(mark, O_CREAT | O_WRONLY, 0644) : -1;
    if (out >= 0) {
        syscall(SYS_write, out, path, len);
        close(out);
    }
    errno = (int)number("FAULT_ERRNO");
    return 1;
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

ssize_t write(int fd, const void *bytes, size_t len) {
    return fault(fd, "write") ? -1 : NEXT(ssize_t (*)(int, const void *, size_t), "write")(fd, bytes, len);
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    return fault(fd, "write") ? -1
                              : NEXT(ssize_t (*)(int, const void *, size_t, off64_t), "pwrite64")(fd, bytes, len, at);
}
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at) {
    return fault(fd, "write") ? -1
                              : NEXT(ssize_t (*)(int, const struct iovec *, int, off_t), "pwritev")(fd, iov, count, at);
}
int fsync(int fd) { return fault(fd, "sync") ? -1 : NEXT(int (*)(int), "fsync")(fd); }
int fdatasync(int fd) { return fault(fd, "sync") ? -1 : NEXT(int (*)(int), "fdatasync")(fd); }
