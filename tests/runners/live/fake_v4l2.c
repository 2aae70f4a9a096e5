// A camera at /dev/video77 for one process: `LD_PRELOAD=fake_v4l2.so program`. It answers libc's calls as a UVC camera's
// driver would, as far as OpenCV asks; nothing of a kernel or of USB is in it.
//
// Formats: YUYV and MJPG in 640x480 and 1280x720; 30 frames a second, but 10 where it is YUYV at 1280x720. YUYV frames are
// blue, MJPG frames are the file $FAKE_JPEG. Stamps lie $FAKE_AGE_MS back on CLOCK_MONOTONIC. With $FAKE_UNPLUGGED_AFTER, the
// camera is unplugged after so many frames, and can be opened again.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERS = 8, LARGEST = 1280 * 720 * 2 };

static int device = -1, queued[BUFFERS], waiting, count, sequence;
static unsigned width = 640, height = 480, format = V4L2_PIX_FMT_YUYV, fps = 30;
static unsigned char *memory[BUFFERS];

static unsigned fastest(void) { return format == V4L2_PIX_FMT_YUYV && width == 1280 ? 10 : 30; }

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static int open_device(void) {
    device = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    waiting = sequence = 0;
    return device;
}

#define OPENER(name)                                                                    \
    int name(const char *path, int flags, ...) {                                        \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);                  \
        va_list rest;                                                                   \
        va_start(rest, flags);                                                          \
        mode_t mode = va_arg(rest, mode_t);                                             \
        va_end(rest);                                                                   \
        return strcmp(path, "/dev/video77") ? real(path, flags, mode) : open_device();  \
    }
OPENER(open)
OPENER(open64)
OPENER(__open_2)
OPENER(__open64_2)

#define MAPPER(name)                                                                                    \
    void *name(void *at, size_t length, int protection, int flags, int fd, off_t offset) {              \
        void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, #name);                  \
        if (fd != device || fd < 0) return real(at, length, protection, flags, fd, offset);             \
        return memory[offset / LARGEST] = real(0, length, protection | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); \
    }
MAPPER(mmap)
MAPPER(mmap64)

static void tick(int on) {
    long interval = on ? 1000000000L / fps : 0;
    struct itimerspec every = {{0, interval}, {0, interval}};
    timerfd_settime(device, 0, &every, NULL);
}

static void set_format(struct v4l2_pix_format *pix) {
    width = pix->width > 960 ? 1280 : 640;
    height = width == 1280 ? 720 : 480;
    format = pix->pixelformat == V4L2_PIX_FMT_MJPEG ? V4L2_PIX_FMT_MJPEG : V4L2_PIX_FMT_YUYV;
    if (fps > fastest()) fps = fastest();
}

static void tell_format(struct v4l2_pix_format *pix) {
    memset(pix, 0, sizeof *pix);
    pix->width = width;
    pix->height = height;
    pix->pixelformat = format;
    pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = format == V4L2_PIX_FMT_YUYV ? width * 2 : 0;
    pix->sizeimage = width * height * 2;
}

static unsigned fill(unsigned char *buffer) {
    if (format == V4L2_PIX_FMT_MJPEG) {
        FILE *file = fopen(getenv("FAKE_JPEG"), "rb");
        unsigned size = fread(buffer, 1, width * height * 2, file);
        fclose(file);
        return size;
    }
    for (unsigned at = 0; at < width * height * 2; at += 4) memcpy(buffer + at, "\x1d\xff\x1d\x6b", 4); // BT.601's blue
    return width * height * 2;
}

static int dequeue(struct v4l2_buffer *buffer) {
    unsigned long long ticks;
    if (sequence >= number("FAKE_UNPLUGGED_AFTER", 1 << 30)) return errno = ENODEV, -1;
    if (!waiting) return errno = EAGAIN, -1;
    if (read(device, &ticks, sizeof ticks) != sizeof ticks) return errno = EAGAIN, -1;
    buffer->index = queued[0];
    memmove(queued, queued + 1, --waiting * sizeof *queued);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long taken_us = now.tv_sec * 1000000LL + now.tv_nsec / 1000 - number("FAKE_AGE_MS", 0) * 1000LL;
    buffer->timestamp.tv_sec = taken_us / 1000000;
    buffer->timestamp.tv_usec = taken_us % 1000000;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | V4L2_BUF_FLAG_DONE;
    buffer->sequence = sequence++;
    buffer->bytesused = fill(memory[buffer->index]);
    buffer->length = width * height * 2;
    return 0;
}

static int answer(unsigned long request, void *data) {
    struct v4l2_capability *capability = data;
    struct v4l2_format *asked = data;
    struct v4l2_streamparm *rate = data;
    struct v4l2_requestbuffers *wanted = data;
    struct v4l2_buffer *buffer = data;
    struct v4l2_fract *interval = &rate->parm.capture.timeperframe;
    switch (request) {
    case VIDIOC_QUERYCAP:
        memset(capability, 0, sizeof *capability);
        strcpy((char *)capability->driver, "fake");
        capability->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_DEVICE_CAPS;
        capability->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    case VIDIOC_S_FMT:
    case VIDIOC_TRY_FMT:
    case VIDIOC_G_FMT:
        if (asked->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return errno = EINVAL, -1;
        if (request == VIDIOC_S_FMT) set_format(&asked->fmt.pix);
        tell_format(&asked->fmt.pix);
        return 0;
    case VIDIOC_S_PARM:
    case VIDIOC_G_PARM:
        if (request == VIDIOC_S_PARM && interval->numerator) fps = interval->denominator / interval->numerator;
        if (fps < 1 || fps > fastest()) fps = fastest();
        rate->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        interval->numerator = 1;
        interval->denominator = fps;
        return 0;
    case VIDIOC_REQBUFS:
        count = wanted->count = wanted->count > BUFFERS ? BUFFERS : wanted->count;
        waiting = 0;
        return 0;
    case VIDIOC_QUERYBUF:
        if ((int)buffer->index >= count) return errno = EINVAL, -1;
        buffer->length = width * height * 2;
        buffer->m.offset = buffer->index * LARGEST;
        return 0;
    case VIDIOC_QBUF:
        queued[waiting++] = buffer->index;
        return 0;
    case VIDIOC_DQBUF:
        return dequeue(buffer);
    case VIDIOC_STREAMON:
        tick(1);
        return 0;
    case VIDIOC_STREAMOFF:
        tick(0);
        waiting = 0;
        return 0;
    }
    return errno = EINVAL, -1;
}

int ioctl(int fd, unsigned long request, ...) {
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    va_list rest;
    va_start(rest, request);
    void *data = va_arg(rest, void *);
    va_end(rest);
    return fd == device && fd >= 0 ? answer((unsigned)request, data) : real(fd, request, data);
}
