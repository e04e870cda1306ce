// Shows the values under the pointer in the line below each chart.
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const chart = JSON.parse(svg.dataset.chart);
  const note = svg.parentElement.querySelector(".note");
  const cursor = svg.querySelector(".cursor");
  const help = note.textContent;
  const [low, high] = chart.range;

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) * (svg.viewBox.baseVal.width / box.width);
    const wanted = low + ((at - chart.left) / chart.width) * (high - low);
    let nearest = 0;
    chart.x.forEach((x, i) => {
      if (Math.abs(x - wanted) < Math.abs(chart.x[nearest] - wanted)) nearest = i;
    });
    const place = chart.left + ((chart.x[nearest] - low) / (high - low)) * chart.width;
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.style.visibility = "visible";
    const values = chart.labels.map((label, i) => {
      const value = chart.y[i][nearest];
      return `${label} ${value === null ? "–" : value}${chart.unit === "%" && value !== null ? " %" : ""}`;
    });
    note.textContent = `iteration ${Math.round(chart.x[nearest])}: ${values.join(", ")}`;
  });

  svg.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden";
    note.textContent = help;
  });
}
