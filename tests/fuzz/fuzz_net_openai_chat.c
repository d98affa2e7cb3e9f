/* fuzz_net_openai_chat.c - replies in the format of net/api_openai_chat.c: see fuzz_net.h. */
#include "tests/fuzz/fuzz_net.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_reply(TLR_NET_OPENAI_CHAT, data, size);
}
