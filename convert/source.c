/* source.c - which kind of source a path names. */
#include "convert/source.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* By its first bytes: the name ends as that of a pickle does. */
static bool is_model(const char *path)
{
    static const char magic[] = "\x89TLR";
    char found[sizeof magic] = {0};
    return tlr_read_text(found, sizeof found, path) > 0 &&
           memcmp(found, magic, sizeof magic) == 0;
}

int tlr_source_open(struct tlr_source **out, const char *path,
                    struct tlr_err *err)
{
    *out = NULL;
    if (strncmp(path, "random:", 7) == 0) {
        return tlr_source_open_random(out, path + 7, err);
    }
    struct stat st;
    if (stat(path, &st) != 0) {
        return tlr_err_set_errno(err,
                                 errno == ENOENT ? TLR_ENOTFOUND : TLR_EIO,
                                 errno,
                                 "%s: expected a .gguf file or a Hugging Face "
                                 "folder",
                                 path);
    }
    if (S_ISDIR(st.st_mode)) {
        return tlr_source_open_hf(out, path, err);
    }
    static const char *const parts_of_folder[] = {".safetensors", ".json"};
    for (int i = 0; i < 2; i++) {
        if (ends_with(path, parts_of_folder[i])) {
            return tlr_err_set(err, TLR_EUSAGE,
                               "%s: expected a folder or a .gguf file, found "
                               "one file of a folder; give the folder that "
                               "holds it",
                               path);
        }
    }
    if (S_ISREG(st.st_mode) && is_model(path)) {
        return tlr_err_set(err, TLR_EUSAGE,
                           "%s: expected a folder or a .gguf file, found a "
                           "model of tlr; use it as it is or convert its "
                           "source again",
                           path);
    }
    static const char *const pickles[] = {".bin", ".pt", ".pth"};
    for (int i = 0; i < 3; i++) {
        if (ends_with(path, pickles[i])) {
            return tlr_err_set(err, TLR_EUNSUPPORTED,
                               "%s: expected a folder or a .gguf file, found "
                               "what may be PyTorch weights, which can run "
                               "code when read; take the .safetensors or .gguf "
                               "files of this model",
                               path);
        }
    }
    return tlr_source_open_gguf(out, path, err);
}

void tlr_source_close(struct tlr_source *s)
{
    if (s) {
        s->ops->close(s);
    }
}
