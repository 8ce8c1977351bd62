# The kernel proper; left out when KELDA_BARE is off.

# Names of the system calls, for the panic on one that the shim does not serve.
file(STRINGS /usr/include/x86_64-linux-gnu/asm/unistd_64.h lines REGEX "^#define __NR_")
set(names "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE "^#define __NR_([a-z0-9_]+) ([0-9]+)$" "{\\2, \"\\1\"},\n" entry "${line}")
  string(APPEND names "${entry}")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/syscall_names.inc CONTENT "${names}" @ONLY)

set(kernel_sources
  acpi.cc aml.cc apic.cc area_list.cc backtrace.cc clock_sources.cc command_line.cc console.cc cpu.cc demand.cc
  descriptors.cc emulation.cc frame_map.cc host_file.cc interrupts.cc io_apic.cc limbo.cc machine_info.cc memory.cc mp_table.cc optimistic.cc page_fault.cc
  paging.cc panic.cc power.cc random.cc shim_files.cc shim_futex.cc shim_memory.cc shim_process.cc shim_table.cc
  shim_threads.cc shim_time.cc smp.cc start.cc symbols.cc tables.cc time.cc tlb.cc traps.cc)
kelda_interrupt_context(${kernel_sources})

kelda_layer(kernel SOURCES ${kernel_sources} boot.S early_memory.S entry.S DEPS kelda_common)
target_include_directories(kelda_kernel PRIVATE ${CMAKE_CURRENT_BINARY_DIR})

add_executable(kelda-embed-symbols embed_symbols.cc)
target_link_libraries(kelda-embed-symbols PRIVATE kelda_options)

function(kelda_make_bootable target)
  target_link_libraries(${target} PRIVATE kelda_kernel)
  target_link_options(${target} PRIVATE -Wl,-u,kelda_pvh_entry)
  add_custom_command(TARGET ${target} POST_BUILD COMMAND kelda-embed-symbols $<TARGET_FILE:${target}>)
  add_dependencies(${target} kelda-embed-symbols)
endfunction()
