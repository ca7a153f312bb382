/* Ends the process with SIGKILL at a step of writing certain files: loaded before libc by the tests of the store.

   KILL_FILES is a part of the path of the files that count. kill_at(n, torn) arms the n-th step from then on;
   with torn, a write gets half of its bytes out first. steps() tells how many there were since. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long limit, count;
static int half;

void kill_at(long step, int torn) { limit = step; half = torn; count = 0; }
long steps(void) { return count; }

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int counts(const char *path)
{
    const char *part = getenv("KILL_FILES");
    if (limit == 0 || part == NULL || strstr(path, part) == NULL)
        return 0;
    return __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) == limit;
}

static int counts_fd(int fd)
{
    char link[64], path[PATH_MAX];
    ssize_t length;
    if (limit == 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return counts(path);
}

/* The other threads go on for a moment, so that whatever is said too early is heard. */
static void die(void) { usleep(20000); kill(getpid(), SIGKILL); pause(); }

ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t (*call)(int, const void *, size_t) = real("write");
    if (counts_fd(fd)) {
        if (half)
            call(fd, data, size / 2);
        die();
    }
    return call(fd, data, size);
}

static ssize_t write_at(const char *name, int fd, const void *data, size_t size, off64_t offset)
{
    ssize_t (*call)(int, const void *, size_t, off64_t) = real(name);
    if (counts_fd(fd)) {
        if (half)
            call(fd, data, size / 2, offset);
        die();
    }
    return call(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return write_at("pwrite64", fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return write_at("pwrite64", fd, data, size, offset); }

static int sync_or_cut(const char *name, int fd, off64_t size)
{
    int (*call)(int, off64_t) = real(name);
    if (counts_fd(fd))
        die();
    return call(fd, size);
}

int fsync(int fd) { return sync_or_cut("fsync", fd, 0); }
int fdatasync(int fd) { return sync_or_cut("fdatasync", fd, 0); }
int ftruncate(int fd, off_t size) { return sync_or_cut("ftruncate64", fd, size); }
int ftruncate64(int fd, off64_t size) { return sync_or_cut("ftruncate64", fd, size); }

int rename(const char *from, const char *to)
{
    int (*call)(const char *, const char *) = real("rename");
    if (counts(from))
        die();
    return call(from, to);
}

int unlink(const char *path)
{
    int (*call)(const char *) = real("unlink");
    if (counts(path))
        die();
    return call(path);
}
