/* Lets one system call on files fail: cc -shared -fPIC -o faults.so faults.c -ldl, then LD_PRELOAD.

   FAULT_PATH   part of the paths of the files concerned
   FAULT_CALLS  names of the calls concerned, such as "write,fsync"
   FAULT_AT     which of these calls fails, from 1; 0: none
   FAULT_ERRNO  the error that it reports
   FAULT_LOG    a file that gets a line for each of these calls */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int count;

static int fails(const char *call, const char *path) {
  const char *part = getenv("FAULT_PATH"), *calls = getenv("FAULT_CALLS"), *log = getenv("FAULT_LOG");
  char name[32];
  if (!part || !calls || !path || !strstr(path, part)) return 0;
  snprintf(name, sizeof name, ",%s,", call);
  char all[512];
  snprintf(all, sizeof all, ",%s,", calls);
  if (!strstr(all, name)) return 0;
  int number = __sync_add_and_fetch(&count, 1);
  if (log) {
    char line[PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%d %s %s\n", number, call, path);
    int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd >= 0) {
      syscall(SYS_write, fd, line, size);
      syscall(SYS_close, fd);
    }
  }
  if (number != atoi(getenv("FAULT_AT") ? getenv("FAULT_AT") : "0")) return 0;
  errno = atoi(getenv("FAULT_ERRNO"));
  return 1;
}

static int fails_fd(const char *call, int fd) {
  char link[64], path[PATH_MAX];
  if (!getenv("FAULT_PATH")) return 0;
  int saved = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  errno = saved;
  if (size <= 0) return 0;
  path[size] = 0;
  return fails(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                \
  int name(const char *path, int flags, ...) {                    \
    va_list more;                                                 \
    va_start(more, flags);                                        \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                 \
    if (fails("open", path)) return -1;                           \
    return REAL(name)(path, flags, mode);                         \
  }
#define OPENAT(name)                                              \
  int name(int folder, const char *path, int flags, ...) {        \
    va_list more;                                                 \
    va_start(more, flags);                                        \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                 \
    if (fails("open", path)) return -1;                           \
    return REAL(name)(folder, path, flags, mode);                 \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t read(int fd, void *to, size_t size) {
  return fails_fd("read", fd) ? -1 : REAL(read)(fd, to, size);
}
ssize_t pread(int fd, void *to, size_t size, off_t at) {
  return fails_fd("read", fd) ? -1 : REAL(pread)(fd, to, size, at);
}
ssize_t pread64(int fd, void *to, size_t size, off64_t at) {
  return fails_fd("read", fd) ? -1 : REAL(pread64)(fd, to, size, at);
}
ssize_t write(int fd, const void *from, size_t size) {
  return fails_fd("write", fd) ? -1 : REAL(write)(fd, from, size);
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) {
  return fails_fd("write", fd) ? -1 : REAL(pwrite)(fd, from, size, at);
}
ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
  return fails_fd("write", fd) ? -1 : REAL(pwrite64)(fd, from, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
  return fails_fd("write", fd) ? -1 : REAL(writev)(fd, parts, number);
}
ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t at) {
  return fails_fd("write", fd) ? -1 : REAL(pwritev)(fd, parts, number, at);
}
ssize_t preadv(int fd, const struct iovec *parts, int number, off_t at) {
  return fails_fd("read", fd) ? -1 : REAL(preadv)(fd, parts, number, at);
}
int fsync(int fd) { return fails_fd("fsync", fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_fd("fsync", fd) ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { return fails_fd("write", fd) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) {
  return fails_fd("write", fd) ? -1 : REAL(ftruncate64)(fd, size);
}
int rename(const char *from, const char *to) {
  return fails("rename", to) ? -1 : REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
  return fails("rename", to) ? -1 : REAL(renameat)(a, from, b, to);
}
int mkdir(const char *path, mode_t mode) {
  return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}
int unlink(const char *path) { return fails("unlink", path) ? -1 : REAL(unlink)(path); }
