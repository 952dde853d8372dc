/*
 * Simulates a disk that can fail and lose power. Loaded into a program with LD_PRELOAD; affects the files in one directory.
 *
 *   PINFOLD_TEST_DISK_ROOT     the directory; all other paths are unaffected
 *   PINFOLD_TEST_DISK_JOURNAL  a directory outside of it, on the same file system, for the journal
 *
 * Power cut. Before each change, the overwritten data is recorded in the journal. The record is discarded when the change is
 * synced. The journal survives the process and is continued by the next one, like the page cache of a real system.
 * `faulty_disk.rs` applies a power cut by undoing changes. A sync only adds an entry: the machine itself does not lose power.
 *
 *   INODE       a hard link to each changed file, whose name may be gone by then
 *   INODE.undo  struct note and the old bytes, for each change of its data since the last complete sync
 *   INODE.lost  exists if a sync of the file failed; later syncs do not save what was written before, as on Linux
 *   INODE.new   exists if its name was created and not yet synced
 *   names       a line for each change of a name, and for each sync that may make names durable
 *
 * Faults. The file `faults` in the journal has one rule per line:
 *
 *   OPERATION ERROR SUBSTRING BYTES TIMES    write|sync|read, ENOSPC|EIO, part of the path, number of bytes that
 *                                            succeed first, and number of failures; without TIMES, forever
 *   ignore-fsync                             syncs succeed without effect
 *
 * "write" includes everything that needs space: writing, extending, creating a file or directory.
 *
 * There is no table of open files: /proc/self/fd gives the path of a descriptor. The library calls the kernel directly, so
 * that its own calls are not intercepted. Not covered: changes through mmap (SQLite's -shm file, which a power cut removes),
 * and system calls that rustix makes without libc: hole punching (only of dead blocks, whose loss costs only space), and
 * the renames of `tempfile`, which count as durable immediately.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define RULES_MAX 8
#define LINE_MAX_BYTES (2 * PATH_MAX + 128)

enum kind { WRITE = 1, SIZE = 2, ZERO = 3, SYNC = 4, SYNC_FAILED = 5 };
struct note { uint64_t kind, offset, length, old_length, old_size; };
struct rule { char operation[16], part[128]; int error; long long bytes, times; };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES_MAX];
static int rule_count, ignore_fsync;
static struct timespec rules_of;

static const char *root(void) { return getenv("PINFOLD_TEST_DISK_ROOT"); }
static const char *journal(void) { return getenv("PINFOLD_TEST_DISK_JOURNAL"); }

static int raw_open(const char *path, int flags) {
    return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}
static void raw_close(int fd) { syscall(SYS_close, fd); }

/* Whether a path is in the directory and not SQLite's shared memory. */
static int is_ours(const char *path) {
    const char *folder = root();
    if (!folder || !journal()) return 0;
    size_t length = strlen(folder), all = strlen(path);
    if (strncmp(path, folder, length) != 0 || (path[length] != '/' && path[length] != 0)) return 0;
    return all < 4 || strcmp(path + all - 4, "-shm") != 0;
}

/* The path of an open file, if it is covered. */
static int path_of(int fd, char *path) {
    char link[64];
    if (fd < 0 || !root()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* Makes a path relative to a directory absolute, if it is covered. */
static int path_in(int dir, const char *path, char *out) {
    if (!root() || !path) return 0;
    if (path[0] == '/' || dir == AT_FDCWD) {
        snprintf(out, PATH_MAX, "%s", path);
        return is_ours(out);
    }
    if (!path_of(dir, out)) return 0;
    size_t length = strlen(out);
    snprintf(out + length, PATH_MAX - length, "/%s", path);
    return is_ours(out);
}

static void in_journal(char *out, unsigned long inode, const char *suffix) {
    snprintf(out, PATH_MAX, "%s/%lu%s", journal(), inode, suffix);
}

static void append(const char *path, const void *head, size_t head_bytes, const void *rest, size_t rest_bytes) {
    struct iovec parts[2] = {{(void *)head, head_bytes}, {(void *)rest, rest_bytes}};
    int fd = raw_open(path, O_WRONLY | O_CREAT | O_APPEND);
    ssize_t done = fd < 0 ? -1 : syscall(SYS_writev, fd, parts, rest_bytes ? 2 : 1);
    if (done != (ssize_t)(head_bytes + rest_bytes)) abort();
    raw_close(fd);
}

static void mark(unsigned long inode, const char *suffix) {
    char path[PATH_MAX];
    in_journal(path, inode, suffix);
    raw_close(raw_open(path, O_WRONLY | O_CREAT));
}

static int unmark(unsigned long inode, const char *suffix) {
    char path[PATH_MAX];
    in_journal(path, inode, suffix);
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0) == 0;
}

static void note_name(const char *format, ...) {
    char path[PATH_MAX], line[LINE_MAX_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    snprintf(path, sizeof path, "%s/names", journal());
    append(path, line, length, NULL, 0);
}

/* Keeps a file reachable by its inode number. */
static void keep(const char *path, unsigned long inode) {
    char link[PATH_MAX];
    in_journal(link, inode, "");
    syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, link, AT_SYMLINK_FOLLOW);
}

/* A descriptor to read an open file with: itself if it can, since closing another one of the same file would end
 * the locks that SQLite has on it. */
static int reader_of(int fd) {
    char path[64];
    int flags = syscall(SYS_fcntl, fd, F_GETFL, 0);
    if ((flags & O_ACCMODE) == O_RDWR && !(flags & O_DIRECT)) return fd;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return raw_open(path, O_RDONLY);
}

static void note_bytes(int reader, unsigned long inode, enum kind kind, off_t offset, size_t length, off_t size) {
    char path[PATH_MAX];
    size_t old = offset >= size ? 0 : (size_t)(size - offset) < length ? (size_t)(size - offset) : length;
    char *bytes = malloc(old + 1);
    for (size_t done = 0; done < old;) {
        ssize_t now = syscall(SYS_pread64, reader, bytes + done, old - done, offset + done);
        if (now <= 0) { memset(bytes + done, 0, old - done); break; }
        done += now;
    }
    struct note note = {kind, offset, length, old, size};
    in_journal(path, inode, ".undo");
    append(path, &note, sizeof note, bytes, old);
    free(bytes);
}

/* Records the data that a write overwrites. */
static void note_write(int fd, const char *path, const struct stat *stat, off_t offset, size_t length) {
    keep(path, stat->st_ino);
    int reader = reader_of(fd);
    note_bytes(reader, stat->st_ino, WRITE, offset, length, stat->st_size);
    if (reader != fd) raw_close(reader);
}

/* Records the data that a truncation removes, without holes. */
static void note_length(int fd, const char *path, const struct stat *stat, off_t length) {
    keep(path, stat->st_ino);
    int reader = reader_of(fd);
    off_t place = syscall(SYS_lseek, reader, 0, SEEK_CUR);
    for (off_t at = length; at < stat->st_size;) {
        off_t data = syscall(SYS_lseek, reader, at, SEEK_DATA);
        if (data < 0 || data >= stat->st_size) break;
        off_t end = syscall(SYS_lseek, reader, data, SEEK_HOLE);
        if (end < 0 || end > stat->st_size) end = stat->st_size;
        note_bytes(reader, stat->st_ino, ZERO, data, end - data, stat->st_size);
        at = end;
    }
    note_bytes(reader, stat->st_ino, SIZE, length, 0, stat->st_size);
    syscall(SYS_lseek, reader, place, SEEK_SET);
    if (reader != fd) raw_close(reader);
}

/* Reads the rules if they have changed. */
static void read_rules(void) {
    char path[PATH_MAX], text[4096], error[16];
    struct stat stat;
    snprintf(path, sizeof path, "%s/faults", journal());
    if (lstat(path, &stat) != 0) { rule_count = ignore_fsync = 0; rules_of.tv_sec = 0; return; }
    if (stat.st_mtim.tv_sec == rules_of.tv_sec && stat.st_mtim.tv_nsec == rules_of.tv_nsec) return;
    rules_of = stat.st_mtim;
    rule_count = ignore_fsync = 0;
    int fd = raw_open(path, O_RDONLY);
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    raw_close(fd);
    text[length > 0 ? length : 0] = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line && rule_count < RULES_MAX; line = strtok_r(NULL, "\n", &rest)) {
        struct rule *rule = &rules[rule_count];
        if (strcmp(line, "ignore-fsync") == 0) ignore_fsync = 1;
        rule->times = LLONG_MAX;
        if (sscanf(line, "%15s %15s %127s %lld %lld", rule->operation, error, rule->part, &rule->bytes, &rule->times) >= 4) {
            rule->error = strcmp(error, "ENOSPC") == 0 ? ENOSPC : EIO;
            rule_count++;
        }
    }
}

/* Returns whether an operation fails and its error; otherwise, the number of bytes that succeed. */
static int fault(const char *operation, const char *path, size_t bytes, size_t *well) {
    read_rules();
    *well = bytes;
    for (int i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->operation, operation) != 0 || !strstr(path, rule->part)) continue;
        if (rule->bytes <= 0 && rule->times-- <= 0) continue;
        if (rule->bytes <= 0) return errno = rule->error, 1;
        if ((long long)*well > rule->bytes) *well = rule->bytes;
        rule->bytes -= *well;
    }
    return 0;
}

static ssize_t write_parts(int fd, const struct iovec *parts, int count, off_t offset) {
    char path[PATH_MAX];
    struct stat stat;
    struct iovec cut = parts[0];
    size_t length = 0, well;
    ssize_t done = -1;
    int ours = path_of(fd, path) && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode);
    if (ours) {
        pthread_mutex_lock(&mutex);
        int flags = syscall(SYS_fcntl, fd, F_GETFL, 0);
        for (int i = 0; i < count; i++) length += parts[i].iov_len;
        if (fault("write", path, length, &well)) goto end;
        if (well < length) {
            /* A write that fits partially is short. Direct writes have whole pages and fail. */
            if (flags & O_DIRECT) { errno = ENOSPC; goto end; }
            if (cut.iov_len > well) cut.iov_len = well;
            parts = &cut;
            count = 1;
            length = cut.iov_len;
        }
        fstat(fd, &stat);
        off_t at = flags & O_APPEND ? stat.st_size : offset >= 0 ? offset : syscall(SYS_lseek, fd, 0, SEEK_CUR);
        note_write(fd, path, &stat, at, length);
    }
    done = offset < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, offset, 0);
end:
    if (ours) pthread_mutex_unlock(&mutex);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    struct iovec part = {(void *)bytes, length};
    return write_parts(fd, &part, 1, at);
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return pwrite64(fd, bytes, length, at); }
ssize_t write(int fd, const void *bytes, size_t length) { return pwrite64(fd, bytes, length, -1); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return write_parts(fd, parts, count, -1); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return write_parts(fd, parts, count, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return write_parts(fd, parts, count, at); }

/* Whether a read fails. */
static int read_fault(int fd) {
    char path[PATH_MAX];
    size_t well;
    int saved = errno, fails = 0;
    if (!path_of(fd, path)) return 0;
    pthread_mutex_lock(&mutex);
    fails = fault("read", path, 0, &well);
    pthread_mutex_unlock(&mutex);
    if (!fails) errno = saved;
    return fails;
}
ssize_t read(int fd, void *to, size_t length) { return read_fault(fd) ? -1 : syscall(SYS_read, fd, to, length); }
ssize_t pread64(int fd, void *to, size_t length, off64_t at) {
    return read_fault(fd) ? -1 : syscall(SYS_pread64, fd, to, length, at);
}
ssize_t pread(int fd, void *to, size_t length, off_t at) { return pread64(fd, to, length, at); }

static int open_path(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat stat;
    size_t well;
    if (!(flags & (O_CREAT | O_TRUNC)) || !path_in(dir, name, path))
        return syscall(SYS_openat, dir, name, flags, mode);
    pthread_mutex_lock(&mutex);
    int fd = -1, is_new = lstat(path, &stat) != 0;
    if (is_new && (flags & O_CREAT) && fault("write", path, 0, &well)) goto end;
    fd = syscall(SYS_openat, dir, name, flags & ~O_TRUNC, mode);
    if (fd >= 0 && (flags & O_TRUNC) && !is_new && S_ISREG(stat.st_mode) && stat.st_size > 0)
        note_length(fd, path, &stat, 0), syscall(SYS_ftruncate, fd, 0);
    if (fd >= 0 && is_new && fstat(fd, &stat) == 0) {
        keep(path, stat.st_ino);
        mark(stat.st_ino, ".new");
        note_name("C\t%lu\t%s\n", stat.st_ino, path);
    }
end:
    pthread_mutex_unlock(&mutex);
    return fd;
}
#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_path(AT_FDCWD, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return open_path(dir, path, flags, mode); }
int open(const char *path, int flags, ...) __attribute__((alias("open64")));
int openat(int dir, const char *path, int flags, ...) __attribute__((alias("openat64")));
int creat(const char *path, mode_t mode) { return open_path(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* Changes of a file's length, and allocation. */
static int resize(int fd, off_t length, int mode, off_t offset, off_t bytes) {
    char path[PATH_MAX];
    struct stat stat;
    size_t well;
    int done = -1, ours = path_of(fd, path);
    if (ours) {
        pthread_mutex_lock(&mutex);
        fstat(fd, &stat);
        if ((bytes || length > stat.st_size) && fault("write", path, 0, &well)) goto end;
        if (!bytes) note_length(fd, path, &stat, length);
        else if (!(mode & FALLOC_FL_KEEP_SIZE)) note_length(fd, path, &stat, stat.st_size);
    }
    done = bytes ? syscall(SYS_fallocate, fd, mode, offset, bytes) : syscall(SYS_ftruncate, fd, length);
end:
    if (ours) pthread_mutex_unlock(&mutex);
    return done;
}
int ftruncate64(int fd, off64_t length) { return resize(fd, length, 0, 0, 0); }
int ftruncate(int fd, off_t length) { return resize(fd, length, 0, 0, 0); }
int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) { return resize(fd, 0, mode, offset, bytes); }
int fallocate(int fd, int mode, off_t offset, off_t bytes) { return resize(fd, 0, mode, offset, bytes); }

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char old[PATH_MAX], new[PATH_MAX];
    struct stat moved, replaced = {0};
    int ours = path_in(from_dir, from, old) && path_in(to_dir, to, new);
    if (!ours) return syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&mutex);
    if (lstat(new, &replaced) == 0) keep(new, replaced.st_ino);
    lstat(old, &moved);
    int done = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (done == 0) note_name("R\t%lu\t%s\t%s\n", (unsigned long)replaced.st_ino, old, new);
    pthread_mutex_unlock(&mutex);
    return done;
}
int renameat(int dir, const char *from, int to_dir, const char *to) { return renameat2(dir, from, to_dir, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    struct stat stat;
    if (!path_in(dir, name, path)) return syscall(SYS_unlinkat, dir, name, flags);
    pthread_mutex_lock(&mutex);
    if (lstat(path, &stat) == 0 && S_ISREG(stat.st_mode)) keep(path, stat.st_ino);
    int done = syscall(SYS_unlinkat, dir, name, flags);
    if (done == 0 && (flags & AT_REMOVEDIR)) note_name("D\t%s\n", path);
    else if (done == 0) note_name("U\t%lu\t%s\n", stat.st_ino, path);
    pthread_mutex_unlock(&mutex);
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int dir, const char *name, mode_t mode) {
    char path[PATH_MAX];
    size_t well;
    if (!path_in(dir, name, path)) return syscall(SYS_mkdirat, dir, name, mode);
    pthread_mutex_lock(&mutex);
    int done = fault("write", path, 0, &well) ? -1 : syscall(SYS_mkdirat, dir, name, mode);
    if (done == 0) note_name("M\t%s\n", path);
    pthread_mutex_unlock(&mutex);
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static int sync_file(int fd, long call) {
    char path[PATH_MAX], undo[PATH_MAX], lost[PATH_MAX];
    struct stat stat;
    size_t well;
    int done = 0;
    if (!path_of(fd, path) || fstat(fd, &stat) != 0) return syscall(call, fd);
    pthread_mutex_lock(&mutex);
    struct note note = {SYNC, 0, 0, 0, stat.st_size};
    in_journal(undo, stat.st_ino, ".undo");
    in_journal(lost, stat.st_ino, ".lost");
    if (fault("sync", path, 0, &well)) {
        done = -1;
        note.kind = SYNC_FAILED;
        if (S_ISREG(stat.st_mode)) append(undo, &note, sizeof note, NULL, 0), mark(stat.st_ino, ".lost");
        errno = EIO;
    } else if (!ignore_fsync && S_ISDIR(stat.st_mode)) {
        note_name("S\t%s\n", path);
    } else if (!ignore_fsync) {
        if (syscall(SYS_faccessat, AT_FDCWD, lost, F_OK) == 0) append(undo, &note, sizeof note, NULL, 0);
        else unmark(stat.st_ino, ".undo");
        if (unmark(stat.st_ino, ".new")) note_name("F\t%lu\t%s\n", stat.st_ino, path);
    }
    pthread_mutex_unlock(&mutex);
    return done;
}
int fsync(int fd) { return sync_file(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_file(fd, SYS_fdatasync); }
/* No durability guarantee. */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    (void)fd, (void)offset, (void)length, (void)flags;
    return 0;
}
