/* kexec_load KERNEL INITRD COMMAND-LINE: loads the kernel that Linux starts when it panics (kexec_file_load(2)). */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* include/uapi/linux/kexec.h */
#define KEXEC_FILE_ON_CRASH 2UL

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int kernel = open(argv[1], O_RDONLY), initrd = open(argv[2], O_RDONLY);
    if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], KEXEC_FILE_ON_CRASH) != 0) {
        perror("kexec_file_load");
        return 1;
    }
    return 0;
}
