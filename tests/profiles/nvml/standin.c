/* A stand-in for libnvidia-ml.so.1, compiled against NVIDIA's own nvml.h.
 *
 * NVML_STANDIN names a script, read at nvmlInit. Lines are "KEY VALUE...", with
 *   init RETURN_CODE | gpus COUNT | GPU.mig COUNT | GPU.QUERY VALUE...
 * The k-th call of a query gets the k-th value, the last one from then on; "!15" makes that call
 * return error 15. A query without a line is not supported. Times ("GPU.QUERY_us") sleep first.
 * A line with a function's own name fails its calls likewise ("nvmlDeviceGetName ok !4"), and
 * "nth N CODE" fails the N-th call of all, counted from 0 at nvmlInit; "calls PATH" appends each
 * function's name to a file.
 */
#include <nvml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_LINES 128
#define MAX_LINE 65536

struct nvmlDevice_st {
    int gpu, mig; /* mig is -1 for the whole GPU */
};
struct line {
    char *key, *values;
    unsigned long calls;
};
static struct line lines[MAX_LINES];
static int num_lines;
static struct nvmlDevice_st devices[8][9];
static long num_calls;

static struct line *find(const char *key) {
    for (int i = 0; i < num_lines; i++)
        if (!strcmp(lines[i].key, key)) return &lines[i];
    return NULL;
}

/* Copy the value of this call; return NVML_SUCCESS or the scripted error. */
static nvmlReturn_t next(const char *key, char *out, size_t size) {
    struct line *line = find(key);
    if (!line) return NVML_ERROR_NOT_SUPPORTED;
    char copy[MAX_LINE], *save = NULL, *value = NULL;
    strcpy(copy, line->values);
    unsigned long index = line->calls++;
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        value = word;
        if (index-- == 0) break;
    }
    if (!value) return NVML_ERROR_UNKNOWN;
    if (value[0] == '!') return (nvmlReturn_t)atoi(value + 1);
    snprintf(out, size, "%s", value);
    return NVML_SUCCESS;
}

/* Count a call; return the error that the script has for it. */
static nvmlReturn_t scripted(const char *function) {
    struct line *path = find("calls"), *nth = find("nth");
    if (path) {
        FILE *file = fopen(path->values, "a");
        if (file) {
            fprintf(file, "%s\n", function);
            fclose(file);
        }
    }
    long index = num_calls++, wanted = -1;
    int code = 0;
    if (nth && sscanf(nth->values, "%ld %d", &wanted, &code) == 2 && index == wanted)
        return (nvmlReturn_t)code;
    char value[64];
    return find(function) ? next(function, value, sizeof value) : NVML_SUCCESS;
}

#define MAY_FAIL                                    \
    do {                                            \
        nvmlReturn_t failure = scripted(__func__);  \
        if (failure != NVML_SUCCESS) return failure; \
    } while (0)

static nvmlReturn_t text(nvmlDevice_t device, const char *name, char *out, size_t size) {
    char key[64];
    snprintf(key, sizeof key, device->mig < 0 ? "%d.%s" : "%d.%s@%d", device->gpu, name,
             device->mig);
    return next(key, out, size);
}

static nvmlReturn_t number(nvmlDevice_t device, const char *name, unsigned long long *out) {
    char value[64];
    nvmlReturn_t code = text(device, name, value, sizeof value);
    if (code == NVML_SUCCESS) *out = strtoull(value, NULL, 0);
    return code;
}

static nvmlReturn_t small(nvmlDevice_t device, const char *name, unsigned int *out) {
    unsigned long long wide = 0;
    nvmlReturn_t code = number(device, name, &wide);
    if (code == NVML_SUCCESS) *out = (unsigned int)wide;
    return code;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    static char buffer[MAX_LINE];
    num_lines = 0;
    if (!file) return NVML_ERROR_DRIVER_NOT_LOADED;
    while (num_lines < MAX_LINES && fgets(buffer, sizeof buffer, file)) {
        buffer[strcspn(buffer, "\n")] = 0;
        char *space = strchr(buffer, ' ');
        if (!space) continue;
        *space = 0;
        lines[num_lines++] = (struct line){strdup(buffer), strdup(space + 1), 0};
    }
    fclose(file);
    num_calls = 0;
    MAY_FAIL;
    char value[64];
    return next("init", value, sizeof value) == NVML_SUCCESS ? (nvmlReturn_t)atoi(value)
                                                             : NVML_SUCCESS;
}

nvmlReturn_t nvmlShutdown(void) {
    MAY_FAIL;
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t code) {
    return code == NVML_ERROR_GPU_IS_LOST ? "GPU is lost" : "scripted error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned int size) {
    MAY_FAIL;
    return next("driver", out, size);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *out) {
    MAY_FAIL;
    char value[64];
    nvmlReturn_t code = next("cuda", value, sizeof value);
    if (code == NVML_SUCCESS) *out = atoi(value);
    return code;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    MAY_FAIL;
    char value[64];
    nvmlReturn_t code = next("gpus", value, sizeof value);
    *count = code == NVML_SUCCESS ? (unsigned int)atoi(value) : 0;
    return code;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *out) {
    MAY_FAIL;
    devices[index][8] = (struct nvmlDevice_st){(int)index, -1};
    *out = &devices[index][8];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t gpu, unsigned int index,
                                                 nvmlDevice_t *out) {
    MAY_FAIL;
    unsigned int count = 0;
    if (small(gpu, "mig", &count) != NVML_SUCCESS || index >= count) return NVML_ERROR_NOT_FOUND;
    devices[gpu->gpu][index] = (struct nvmlDevice_st){gpu->gpu, (int)index};
    *out = &devices[gpu->gpu][index];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t part, nvmlDevice_t *out) {
    MAY_FAIL;
    return nvmlDeviceGetHandleByIndex_v2((unsigned int)part->gpu, out);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *out) {
    MAY_FAIL;
    *out = (unsigned int)device->gpu;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned int size) {
    MAY_FAIL;
    return text(device, "uuid", out, size);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out) {
    MAY_FAIL;
    char found[96];
    unsigned int count = 0;
    nvmlDeviceGetCount_v2(&count);
    for (unsigned int gpu = 0; gpu < count; gpu++) {
        nvmlDeviceGetHandleByIndex_v2(gpu, out);
        if (nvmlDeviceGetUUID(*out, found, sizeof found) == NVML_SUCCESS && !strcmp(found, uuid))
            return NVML_SUCCESS;
        nvmlDevice_t whole = *out;
        for (unsigned int mig = 0;
             nvmlDeviceGetMigDeviceHandleByIndex(whole, mig, out) == NVML_SUCCESS; mig++)
            if (nvmlDeviceGetUUID(*out, found, sizeof found) == NVML_SUCCESS &&
                !strcmp(found, uuid))
                return NVML_SUCCESS;
    }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned int size) {
    MAY_FAIL;
    return text(device, "name", out, size);
}

nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *out, unsigned int size) {
    MAY_FAIL;
    return text(device, "vbios", out, size);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *out) {
    MAY_FAIL;
    unsigned int us = 0;
    if (small(device, "power_us", &us) == NVML_SUCCESS) usleep(us);
    return small(device, "power_mw", out);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    MAY_FAIL;
    for (int i = 0; i < count; i++)
        values[i].nvmlReturn = values[i].fieldId == NVML_FI_DEV_POWER_INSTANT
                                   ? small(device, "power_instant_mw", &values[i].value.uiVal)
                                   : NVML_ERROR_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *out) {
    MAY_FAIL;
    return small(device, "power_limit_mw", out);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *out) {
    MAY_FAIL;
    return number(device, "energy_mj", out);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *out) {
    MAY_FAIL;
    nvmlReturn_t code = small(device, "sm_utilization", &out->gpu);
    return code != NVML_SUCCESS ? code : small(device, "memory_utilization", &out->memory);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *out) {
    MAY_FAIL;
    nvmlReturn_t code = number(device, "memory_used", &out->used);
    return code != NVML_SUCCESS ? code : number(device, "memory_total", &out->total);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *out) {
    MAY_FAIL;
    return small(device, type == NVML_CLOCK_MEM ? "memory_clock" : "sm_clock", out);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type,
                                       unsigned int *out) {
    MAY_FAIL;
    (void)type;
    return small(device, "max_sm_clock", out);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *out) {
    MAY_FAIL;
    unsigned int value = 0;
    nvmlReturn_t code = small(device, "temperature", &value);
    out->temperature = (int)value;
    return code;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *out) {
    MAY_FAIL;
    return number(device, "throttle", out);
}

nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, nvmlPcieUtilCounter_t counter,
                                         unsigned int *out) {
    MAY_FAIL;
    return small(device, counter == NVML_PCIE_UTIL_TX_BYTES ? "pcie_tx" : "pcie_rx", out);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *now, unsigned int *pending) {
    MAY_FAIL;
    nvmlReturn_t code = small(device, "mig_mode", now);
    *pending = *now;
    return code;
}

nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t device, nvmlClockType_t type,
                                            unsigned int *out) {
    MAY_FAIL;
    (void)type;
    return small(device, "application_clock", out);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned int *out) {
    MAY_FAIL;
    return small(device, "pcie_generation", out);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int *out) {
    MAY_FAIL;
    return small(device, "pcie_width", out);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    MAY_FAIL;
    unsigned int value = 0;
    nvmlReturn_t code = small(device, "compute_capability", &value); /* 86 for 8.6 */
    *major = (int)value / 10;
    *minor = (int)value % 10;
    return code;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor,
                                      unsigned int *out) {
    MAY_FAIL;
    (void)sensor;
    return small(device, "old_temperature", out);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device,
                                                       unsigned long long *out) {
    MAY_FAIL;
    return number(device, "old_throttle", out);
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *now,
                                  nvmlEnableState_t *pending) {
    MAY_FAIL;
    unsigned int value = 0;
    nvmlReturn_t code = small(device, "ecc", &value);
    *now = *pending = (nvmlEnableState_t)value;
    return code;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *out) {
    MAY_FAIL;
    unsigned int value = 0;
    nvmlReturn_t code = small(device, "persistence", &value);
    *out = (nvmlEnableState_t)value;
    return code;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_t *infos) {
    MAY_FAIL;
    unsigned int wanted = 0;
    if (!infos) {
        nvmlReturn_t code = small(device, "num_processes", &wanted);
        if (code != NVML_SUCCESS) return code;
        *count = wanted;
        return wanted ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    }
    if (small(device, "num_processes_filled", &wanted) != NVML_SUCCESS) wanted = 1;
    *count = wanted;
    for (unsigned int i = 0; i < wanted; i++) infos[i].pid = 1000 + i;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int *out) {
    MAY_FAIL;
    return small(device, "max_pcie_width", out);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type,
                                         nvmlEccCounterType_t counter, unsigned long long *out) {
    MAY_FAIL;
    (void)type;
    (void)counter;
    return number(device, "ecc_errors", out);
}

nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t device, unsigned int *out) {
    MAY_FAIL;
    return small(device, "pcie_replays", out);
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *out) {
    MAY_FAIL;
    nvmlReturn_t code = small(device, "mig_slices", &out->gpuInstanceSliceCount);
    if (code != NVML_SUCCESS) return code;
    return small(device, "mig_multiprocessors", &out->multiprocessorCount);
}
