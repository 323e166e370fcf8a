// Draws the curves of the report with uPlot, from the JSON in the page. Text of other origin is only ever text content.
'use strict';
(() => {
  const PALETTES = {
    light: ['#1f5fa8', '#c2410c', '#15803d', '#7c3aed', '#b91c1c', '#0e7490', '#a16207', '#be185d', '#4d7c0f', '#57534e'],
    dark: ['#82b4f0', '#fb923c', '#4ade80', '#c4b5fd', '#f87171', '#67e8f9', '#facc15', '#f9a8d4', '#a3e635', '#d6d3d1'],
  };
  const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3]];
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const charts = JSON.parse(document.getElementById('charts').textContent);
  const places = [...document.querySelectorAll('.chart')];
  const hidden = new Set();  // names of series, in all charts
  let drawn = [];

  const colour = index => PALETTES[dark.matches ? 'dark' : 'light'][index % 10];
  const dash = index => DASHES[Math.floor(index / 10) % DASHES.length];
  const token = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shown = value => value == null ? '-' : Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4 ? value.toFixed(4) : value.toPrecision(4);

  function columns(chart) {
    const start = Math.min(...chart.series.map(each => each.start));
    const end = Math.max(...chart.series.map(each => each.start + each.values.length));
    const epochs = Array.from({length: end - start}, (_, index) => start + index);
    return [epochs, ...chart.series.map(each => epochs.map(epoch => each.values[epoch - each.start] ?? null))];
  }

  // the values that the pointer is over, or the last ones
  function tell(plot, chart, readout) {
    const index = plot.cursor.idx;
    const value = values => index == null ? values.findLast(each => each != null) : values[index];
    const parts = chart.series.map((each, number) => [each.name, value(plot.data[number + 1])]);
    const said = parts.filter(([name]) => !hidden.has(name)).map(([name, value]) => `${name}: ${shown(value)}`);
    readout.textContent = `${index == null ? 'at the end' : `epoch ${plot.data[0][index]}`} · ${said.join(' · ')}`;
  }

  function draw(place, chart) {
    const readout = place.parentElement.querySelector('.readout');
    const axis = {stroke: token('--text'), grid: {stroke: token('--line'), width: 1}, ticks: {stroke: token('--line'), width: 1}};
    const few = Math.max(...chart.series.map(each => each.values.length)) <= 30;
    const plot = new uPlot({
      width: place.clientWidth, height: 300,
      legend: {show: false},
      cursor: {sync: {key: 'epochs'}, drag: {x: true, y: false}},
      scales: {x: {time: false}},
      axes: [{...axis, label: 'epoch', incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]},
             {...axis, label: chart.label, size: 64}],
      series: [{}, ...chart.series.map((each, index) => ({
        label: each.name, stroke: colour(index), dash: dash(index), width: 2, spanGaps: false, show: !hidden.has(each.name),
        points: {show: few, size: 5, fill: colour(index)},
      }))],
      hooks: {setCursor: [plot => tell(plot, chart, readout)], ready: [plot => tell(plot, chart, readout)]},
    }, columns(chart), place);
    return plot;
  }

  function redraw() {
    drawn.forEach(plot => plot.destroy());
    drawn = places.map((place, index) => draw(place, charts[index]));
    document.querySelectorAll('.legend button').forEach(button => {
      const swatch = button.querySelector('.swatch');
      swatch.style.background = colour(Number(button.dataset.index));
    });
  }

  document.querySelectorAll('.legend button').forEach(button => button.addEventListener('click', () => {
    const name = button.dataset.name, show = hidden.has(name);
    show ? hidden.delete(name) : hidden.add(name);
    button.setAttribute('aria-pressed', String(show));
    drawn.forEach((plot, index) => charts[index].series.forEach((each, number) => {
      if (each.name === name) plot.setSeries(number + 1, {show});
    }));
  }));
  document.documentElement.classList.add('scripted');
  redraw();
  dark.addEventListener('change', redraw);
  let width = innerWidth;
  addEventListener('resize', () => {
    if (innerWidth !== width) drawn.forEach((plot, index) => plot.setSize({width: places[index].clientWidth, height: 300}));
    width = innerWidth;
  });
})();
