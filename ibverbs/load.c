//go:build linux && cgo

// The one place where libibverbs is opened.
#include "verbs.h"

#include <dlfcn.h>
#include <string.h>

struct rx_symbols rx;

char *rx_load(void)
{
	// RTLD_NODELETE: providers leave fork handlers behind, so never unload.
	void *lib = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!lib)
		return strdup(dlerror());

	// dlsym takes the library's default versions. Some calls exist only as
	// IBVERBS_1.0, so asking for one version of all would miss them.
	const struct {
		void **slot;
		const char *name;
		int optional;
	} table[] = {
		{(void **)&rx.get_device_list, "ibv_get_device_list", 0},
		{(void **)&rx.free_device_list, "ibv_free_device_list", 0},
		{(void **)&rx.open_device, "ibv_open_device", 0},
		{(void **)&rx.close_device, "ibv_close_device", 0},
		{(void **)&rx.query_device, "ibv_query_device", 0},
		{(void **)&rx.query_port, "ibv_query_port", 0},
		{(void **)&rx.query_pkey, "ibv_query_pkey", 0},
		{(void **)&rx.query_gid_table, "_ibv_query_gid_table", 1},
		{(void **)&rx.alloc_pd, "ibv_alloc_pd", 0},
		{(void **)&rx.dealloc_pd, "ibv_dealloc_pd", 0},
		{(void **)&rx.reg_mr, "ibv_reg_mr", 0},
		{(void **)&rx.dereg_mr, "ibv_dereg_mr", 0},
		{(void **)&rx.create_comp_channel, "ibv_create_comp_channel", 0},
		{(void **)&rx.destroy_comp_channel, "ibv_destroy_comp_channel", 0},
		{(void **)&rx.create_cq, "ibv_create_cq", 0},
		{(void **)&rx.destroy_cq, "ibv_destroy_cq", 0},
		{(void **)&rx.get_cq_event, "ibv_get_cq_event", 0},
		{(void **)&rx.ack_cq_events, "ibv_ack_cq_events", 0},
		{(void **)&rx.create_qp, "ibv_create_qp", 0},
		{(void **)&rx.modify_qp, "ibv_modify_qp", 0},
		{(void **)&rx.destroy_qp, "ibv_destroy_qp", 0},
		{(void **)&rx.query_qp, "ibv_query_qp", 0},
		{(void **)&rx.create_srq, "ibv_create_srq", 0},
		{(void **)&rx.modify_srq, "ibv_modify_srq", 0},
		{(void **)&rx.destroy_srq, "ibv_destroy_srq", 0},
		{(void **)&rx.create_ah, "ibv_create_ah", 0},
		{(void **)&rx.destroy_ah, "ibv_destroy_ah", 0},
		{(void **)&rx.get_async_event, "ibv_get_async_event", 0},
		{(void **)&rx.ack_async_event, "ibv_ack_async_event", 0},
		{(void **)&rx.reg_mr_iova2, "ibv_reg_mr_iova2", 1},
		{(void **)&rx.reg_dmabuf_mr, "ibv_reg_dmabuf_mr", 1},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		*table[i].slot = dlsym(lib, table[i].name);
		if (!*table[i].slot && !table[i].optional)
			return strdup(dlerror());
	}
	return NULL;
}
